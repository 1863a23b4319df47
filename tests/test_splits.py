"""The split audit: who made the VMAs of the largest trees, by counts that can be done by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import replay
from captures import open_capture
from captures.canonical import canonical_events
from replay.lifetimes import avc_lives
from replay.merges import neighbours
from replay.splits import Audit, audit

HERE = Path(__file__).parent
TRUTH = HERE / "data" / "truth"
SPLIT = HERE.parent / "captures" / "samples" / "split-6.12.dat"
VM_WRITE, VM_DONTCOPY, VM_DONTDUMP = 0x2, 0x20000, 0x4000000
PAGES = 2000


def audited(path: Path) -> tuple[Audit, pl.DataFrame]:
    """The audit of a capture with tree probes, and its table ``refusal``."""
    with open_capture(path) as capture:
        events = {name: pl.DataFrame(pl.from_arrow(t)) for name, t in canonical_events(capture).items()}
        comms = capture.comms()
    lives, versions = avc_lives(events["ev_avc"], events["ev_syscall"])
    found = audit(lives, events, comms)
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
    assert [(row["kind"], row["reasons"], row["vm_flags"], row["merges"]) for row in refused] == [
        ("neighbours", "flags", VM_WRITE, PAGES - 1)
    ]


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
