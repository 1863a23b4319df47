"""The same history by another kernel's rules: by the kernel's own it is what the kernel counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay import AnalyzeOptions, analyze
from replay.evidence import rules_of
from replay.ksm.modelled import modelled_spaces, tree_events
from replay.ksm.other_kernel import by_rules_of, other_kernel
from replay.model.rebuild import reconstruct
from replay.state.spaces import mm_of
from replay.strategies import BUILTIN
from replay.walks.callers import named
from replay.walks.exact import replay_exact
from reports import render_text
from tests.model_machine import BASE, PAGE, History, empty_events

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = tuple(BUILTIN)
COUNTS = ("iterations", "skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls", "ended_early")
BOUNDED = {
    "6.12_s12-mapcount_s2-fork-reclaim.dat": 0,
    "6.12_s3-mremap_truth.dat": 0,
    "6.12_s5-random_truth.dat": 71,
    "6.12_s11-victims_truth-tiny.dat": 89,
    "6.12_s6-fleet_f03-s1.dat": 0,
    "7.3_s12-mapcount_s2-fork.dat": 0,
    "7.3_s12-mapcount_s3-mremap.dat": 0,
    "7.3_s4-holes_truth.dat": 0,
    "7.3_s7-fileprivate_truth.dat": 0,
    "custom-7.3-full_S4_notruth.dat": 0,
}
"""Captures, and how many of their loops ran while an operation on their tree was half done."""


@pytest.mark.parametrize("name", BOUNDED)
def test_the_kernels_own_rules_give_the_exact_counts(name: str) -> None:
    with open_capture(TRUTH / name) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    events["ev_walk"] = named(events["ev_walk"], events["ev_migration_pte"])
    rules = rules_of(None, events)
    exact = replay_exact(events, STRATEGIES)
    other = by_rules_of(events, reconstruct(events, rules), rules, STRATEGIES)
    assert other.unplaced == 0
    key = ["walk_id", "strategy", "nth"]
    ours, theirs = (
        state.loop.with_columns(nth=pl.int_range(pl.len()).over("walk_id", "strategy"))
        for state in (other.state, exact)
    )
    both = theirs.select(*key, *COUNTS, "first_pgoff").join(ours, on=key, how="full", suffix="_model")
    bounded = both.filter(pl.col("iterations_most").is_not_null())
    assert len(bounded) == BOUNDED[name]
    assert bounded["iterations"].is_between(bounded["iterations_least"], bounded["iterations_most"]).all()
    sure = both.filter(pl.col("iterations_most").is_null())
    assert len(sure) > 0
    for column in (*COUNTS, "first_pgoff"):
        assert sure[column].eq_missing(sure[f"{column}_model"]).all(), column
    assert other.state.miss.height == exact.miss.height


def predicted(
    history: History, own: KernelRules, other: KernelRules, pages: list[tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """Rows of ``other_kernel`` by strategy, for a capture of a kernel of rules ``own``.

    Args:
        history: What its tasks did; in the end, pages are merged and their folio is walked.
        own: Rules of the traced kernel.
        other: Rules asked for.
        pages: The pages merged into one node, in this order: pid, page from ``BASE``.
    """
    events = history.events()
    model = reconstruct(events, own)
    schemas = {name: frame.schema for name, frame in empty_events().items()}
    ev_avc = tree_events(model.lives, model.versions).select(schemas["ev_avc"].names())
    tasks = pl.DataFrame(
        {"pid": [pid for pid, _ in pages], "seq": history.seq}, schema={"pid": pl.Int32, "seq": pl.Int64}
    )
    running = mm_of(tasks, modelled_spaces(events, ev_avc, model.lives))["mm"]
    rows: dict[str, list[dict[str, Any]]] = {"ev_append": [], "ev_walk": []}

    def emit(table: str, pid: int, **fields: Any) -> None:
        rows[table].append({"seq": history.seq, "ts_ns": 1000 * history.seq, "cpu": 0, "pid": pid, **fields})
        history.seq += 1

    for number, (_, page) in enumerate(pages):
        emit(
            "ev_append",
            30,
            rmap_item=7000 + number,
            stable_node=9000,
            mm=running[number],
            address=BASE + page * PAGE | 0x200,
            anon_vma=1,
        )
    emit("ev_walk", 31, is_return=False, stable_node=9000, rmap_one="page_idle_clear_pte_refs_one", folio=64)
    emit("ev_walk", 31, is_return=True)
    events |= {name: pl.DataFrame(each, schema=schemas[name]) for name, each in rows.items()}
    events["ev_avc"] = ev_avc
    result = by_rules_of(events, reconstruct(events, other), other, STRATEGIES)
    assert result.unplaced == 0
    return {row["strategy"]: row for row in other_kernel(result).to_dicts()}


P = 100


def mapped(history: History, first: int, last: int, *, flags: int = 0x32, file_page: int = 0) -> None:
    arguments = (BASE + first * PAGE, (last - first) * PAGE, 3, flags, 3, file_page * PAGE)
    history.call(P, "mmap", arguments, BASE + first * PAGE)


def protected(history: History, first: int, last: int, prot: int) -> None:
    history.call(P, "mprotect", (BASE + first * PAGE, (last - first) * PAGE, prot))


@pytest.mark.parametrize(("rules", "addr", "vm_pgoff"), [("6.12", 1, 0), ("7.3", 0, 1)])
def test_copied_pages_of_a_private_file(rules: KernelRules, addr: int, vm_pgoff: int) -> None:
    history = History()
    mapped(history, 0, 4, flags=0x12, file_page=7)
    history.fault(P, BASE)
    rows = predicted(history, "7.3" if rules == "6.12" else "6.12", rules, [(P, 0)])
    assert (rows["addr"]["missed"], rows["vm_pgoff"]["missed"]) == (addr, vm_pgoff)
    assert (rows["full"]["missed"], rows["linear"]["missed"]) == (0, 0)


@pytest.mark.parametrize(("rules", "intervals"), [("6.12", 1), ("7.3", 5)])
def test_a_faulted_range_beside_an_unfaulted_one(rules: KernelRules, intervals: int) -> None:
    """7.3 makes one VMA of both, so splits of the unfaulted part fill the tree."""
    history = History()
    mapped(history, 0, 10)
    history.call(P, "madvise", (BASE, PAGE, 12))
    history.fault(P, BASE)
    history.call(P, "madvise", (BASE, PAGE, 13))
    protected(history, 3, 4, 0)
    protected(history, 6, 7, 0)
    rows = predicted(history, "6.12", rules, [(P, 0)])
    assert rows["full"]["iterations_max"] == intervals
    assert rows["linear"]["iterations_max"] == 1


@pytest.mark.parametrize(("rules", "intervals"), [("6.12", 4), ("7.3", 1)])
def test_growth_under_memory_merge(rules: KernelRules, intervals: int) -> None:
    history = History()
    history.call(P, "prctl", (67, 1))
    for number in range(4):
        mapped(history, 10 - number, 11 - number)
        history.fault(P, BASE + (10 - number) * PAGE)
    rows = predicted(history, "6.12", rules, [(P, 10)])
    assert (rows["full"]["iterations_max"], rows["linear"]["iterations_max"]) == (intervals, 1)


@pytest.mark.parametrize(("rules", "relatives"), [("6.12", 4), ("7.3", 3)])
def test_forks_take_another_anon_vma_again(rules: KernelRules, relatives: int) -> None:
    """Two anon_vmas are idle; which of them the last fork finds first is a matter of the avc list's order."""
    history = History()
    mapped(history, 0, 2)
    history.fault(P, BASE)
    for parent, child in ((P, 101), (101, 102), (101, 0), (102, 103), (102, 104), (104, 105), (105, 107)):
        if child:
            history.fork(parent, child)
        else:
            history.task(parent, "exit")
    history.task(102, "exit")
    history.task(104, "exit")
    history.fork(107, 106)
    history.fault(106, BASE)
    rows = predicted(history, "6.12", rules, [(106, 0)])
    assert (rows["full"]["iterations_max"], rows["full"]["found"]) == (relatives, 1)


@pytest.mark.parametrize(("rules", "missed"), [("6.12", 1), ("7.3", 0)])
def test_what_dontunmap_leaves_of_a_moved_vma(rules: KernelRules, missed: int) -> None:
    """Up to 7.2 its page offset stays shifted, and the next fault indexes by it."""
    history = History()
    mapped(history, 0, 2)
    history.fault(P, BASE)
    history.call(P, "mremap", (BASE, 2 * PAGE, 2 * PAGE, 3, BASE + 20 * PAGE), BASE + 20 * PAGE)
    history.call(P, "mremap", (BASE + 20 * PAGE, 2 * PAGE, 2 * PAGE, 5, 0), BASE + 30 * PAGE)
    history.fault(P, BASE + 20 * PAGE)
    rows = predicted(history, "6.12", rules, [(P, 20)])
    assert (rows["addr"]["missed"], rows["linear"]["missed"]) == (missed, 0)


def test_the_report_has_both_beside_each_other() -> None:
    analysis = analyze(TRUTH / "7.3_s7-fileprivate_truth.dat", AnalyzeOptions(kernel_rules="6.12"))
    rows = {row["strategy"]: row for row in analysis.tables["other_kernel"].to_pylist()}
    assert {row["kernel_rules"] for row in rows.values()} == {"6.12"}
    assert {row["evidence"] for row in rows.values()} == {"predicted"}
    own = {row["strategy"]: row for row in analysis.tables["summary"].to_pylist()}
    line = ("addr", own["addr"]["missed"], rows["addr"]["missed"])
    assert line == ("addr", 0, 184)
    text = render_text(analysis.tables)
    assert "The same walks over trees kept by the rules of 6.12 (predicted):" in text
    assert "addr              1       1    636     340      0     184\n" in text


def test_what_the_model_does_not_have_is_said() -> None:
    """The stack of a new program: no stock event tells where execve put it."""
    folder = Path(__file__).parent.parent / "captures" / "samples"
    analysis = analyze(folder / "stack-7.3.dat", AnalyzeOptions(kernel_rules="6.12", strategies=("full",)))
    notes = {row["kind"]: row["count"] for row in analysis.tables["quality"].to_pylist()}
    assert notes["other_kernel_unplaced"] == 516
    assert analysis.tables["other_kernel"].to_pylist()[0]["iterations_total"] is None
