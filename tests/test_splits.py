"""The split audit: who made the VMAs of the largest trees, by counts that can be done by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

import replay
from captures import open_capture
from captures.canonical import canonical_events
from replay.findings.merges import neighbours, tried
from replay.findings.splits import Audit, audit
from replay.model.rebuild import reconstruct
from replay.state.families import one_by_one, roots
from replay.state.lifetimes import avc_lives
from schemas import TABLES
from tests.model_machine import BASE, PAGE, History

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

HERE = Path(__file__).parent
TRUTH = HERE / "data" / "truth"
SPLIT = HERE.parent / "captures" / "samples" / "split-6.12.dat"
VM_WRITE, VM_DONTCOPY, VM_DONTDUMP, VM_MERGEABLE = 0x2, 0x20000, 0x4000000, 0x80000000
PAGES = 2000
MADV_DONTDUMP, MADV_DODUMP = 16, 17


def audited(path: Path) -> tuple[Audit, pl.DataFrame]:
    """The audit of a capture with tree probes, and its table ``refusal``."""
    with open_capture(path) as capture:
        events = {name: pl.DataFrame(pl.from_arrow(t)) for name, t in canonical_events(capture).items()}
        comms = capture.comms()
    lives, versions = avc_lives(events["ev_avc"], events["ev_syscall"])
    numbered = one_by_one(lives.select(TABLES["avc"].arrow.names))
    found = audit(numbered, roots(numbered), events, comms)
    return found, neighbours(found, versions, events["ev_avc"])


@pytest.mark.parametrize("path", sorted(TRUTH.glob("*.dat")), ids=lambda path: path.stem)
def test_the_call_sites_of_a_tree_add_up_to_its_peak(path: Path) -> None:
    found, refusal = audited(path)
    assert not found.tree.is_empty()
    sums = found.split.group_by("tree_id").agg(
        pl.col("vmas_to_peak", "vmas", "inserted", "removed").sum().name.suffix("_sum")
    )
    tree = found.tree.join(sums, on="tree_id", how="left").with_columns(
        pl.selectors.ends_with("_sum").fill_null(0)
    )
    assert (tree["before"] + tree["vmas_to_peak_sum"] == tree["peak"]).all()
    assert (tree["before"] + tree["vmas_sum"] == tree["at_end"]).all()
    assert (tree["inserted_sum"] == tree["inserted"]).all()
    assert (tree["removed_sum"] == tree["removed"]).all()
    at_peak = (
        found.population.group_by("tree_id", "ts_ns")
        .agg(pl.col("vmas").sum())
        .join(tree, on="tree_id")
        .with_columns(vmas=pl.col("vmas") + pl.col("before"))
    )
    assert at_peak.filter(pl.col("vmas") > pl.col("peak")).is_empty()
    reached = at_peak.filter(pl.col("vmas") == pl.col("peak"))["tree_id"].unique()
    assert set(reached) >= set(tree.filter(pl.col("peak_ts_ns").is_not_null())["tree_id"])
    pairs = refusal.group_by("tree_id").agg(pl.col("merges").sum())
    checked = tree.join(pairs, on="tree_id")
    assert (checked["merges"] == checked["peak"] - checked["mms"]).all()


@pytest.mark.parametrize("evidence", ["exact", "modelled"])
def test_every_other_page_of_2000_mprotected(evidence: str) -> None:
    tables = replay.analyze(SPLIT, replay.AnalyzeOptions(evidence=evidence)).tables
    tree = tables["tree"].to_pylist()[0]
    assert (tree["peak"], tree["before"], tree["mms"], tree["evidence"]) == (PAGES, 0, 1, evidence)
    own = [row for row in tables["split"].to_pylist() if row["tree_id"] == tree["tree_id"]]
    counts = {(row["cause_event"], row["arguments"]): (row["calls"], row["vmas_to_peak"]) for row in own}
    assert counts == {
        ("mprotect", "PROT_READ"): (PAGES // 2, PAGES - 1),
        ("page_fault", None): (1, 1),
        ("exit_group", None): (1, 0),
    }
    refused = [row for row in tables["refusal"].to_pylist() if row["tree_id"] == tree["tree_id"]]
    pairs = [row for row in refused if row["kind"] == "neighbours"]
    assert [(row["reasons"], row["vm_flags"], row["merges"]) for row in pairs] == [
        ("flags", VM_WRITE, PAGES - 1)
    ]
    # Only what lies before the first page touches what is mprotected; the other pages lie inside.
    tried = {row["cause_event"]: row["merges"] for row in refused if row["kind"] == "merge"}
    assert tried == ({"madvise": 1, "mprotect": 1} if evidence == "modelled" else {})


def test_a_fork_gives_each_vma_an_anon_vma_of_its_own() -> None:
    found, refusal = audited(TRUTH / "7.3_s2-fork_truth.dat")
    peak, mms = found.tree.select("peak", "mms").row(0)
    assert (peak, mms) == (800, 4)
    of_calls = (
        found.split.filter(pl.col("tree_id") == 0).group_by("cause_event").agg(pl.col("vmas_to_peak").sum())
    )
    # 200 VMAs; two children and a grandchild get as many each.
    assert dict(of_calls.filter(pl.col("vmas_to_peak") > 0).iter_rows()) == {
        "clone": 600,
        "mprotect": 199,
        "page_fault": 1,
    }
    reasons = refusal.filter(pl.col("tree_id") == 0).group_by("reasons").agg(pl.col("merges").sum())
    assert dict(reasons.iter_rows()) == {"flags": 199, "flags, anon_vma": 3 * 199}


def refusals(history: History, rules: KernelRules) -> list[tuple[str, int, bool, bool]]:
    """What the model says of the merges of a history: reasons, flags, and which rules refuse."""
    events = history.events()
    rows = tried(reconstruct(events, rules).refusals, empty_tree(), events, {})
    return rows.select("reasons", "vm_flags", "by_6_12", "by_7_3").rows()


def empty_tree() -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(TABLES["tree"].empty()))


def test_what_pr_set_memory_merge_keeps_apart_on_6_12_merges_on_7_3(rules: KernelRules) -> None:
    history = History()
    history.call(7, "prctl", (67, 1))
    for page in range(3):
        history.call(7, "mmap", (BASE + page * PAGE, PAGE, 3, 0x22), BASE + page * PAGE)
    assert refusals(history, rules) == [("flags", VM_MERGEABLE, True, False)]
    vmas = reconstruct(history.events(), rules).versions.filter(pl.col("died_ts_ns").is_null())
    assert len(vmas) == (3 if rules == "6.12" else 1)


def test_faulted_into_unfaulted_merges_on_7_3_only(rules: KernelRules) -> None:
    history = History()
    history.call(7, "mmap", (BASE, 2 * PAGE, 3, 0x22), BASE)
    history.call(7, "madvise", (BASE + PAGE, PAGE, MADV_DONTDUMP))
    history.fault(7, BASE + PAGE)
    history.call(7, "madvise", (BASE + PAGE, PAGE, MADV_DODUMP))
    assert refusals(history, rules) == [("anon_vma", 0, True, False)]


def test_holes_and_advice_are_told_apart() -> None:
    found, refusal = audited(TRUTH / "7.3_s4-holes_truth.dat")
    own = found.split.filter(pl.col("tree_id") == 0)
    advice = own.filter(pl.col("cause_event") == "madvise").select("arguments", "vmas_to_peak")
    assert dict(advice.filter(pl.col("vmas_to_peak") > 0).iter_rows()) == {
        "MADV_DONTFORK": 2,
        "MADV_DONTDUMP": 2,
    }
    pairs = refusal.filter(pl.col("tree_id") == 0)
    assert pairs.filter(pl.col("reasons") == "apart")["cause_event"].unique().to_list() == ["munmap"]
    bits = pairs.filter(pl.col("reasons") == "flags")["vm_flags"].bitwise_or()
    assert bits & (VM_WRITE | VM_DONTCOPY | VM_DONTDUMP) == VM_WRITE | VM_DONTCOPY | VM_DONTDUMP
