"""Families of anon_vmas: how forks make them grow, by counts that can be done by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from captures import open_capture
from captures.canonical import canonical_events
from replay import analyze
from replay.model.rebuild import reconstruct
from replay.state.families import growth, one_by_one, roots
from replay.state.lifetimes import avc_lives
from reports import json_summary, render_text
from tests.model_machine import BASE, PAGE, History

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

TRUTH = Path(__file__).parent / "data" / "truth"
SAMPLES = Path(__file__).parent.parent / "captures" / "samples"


def grown(avc: pl.DataFrame, vma: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    lives = one_by_one(avc)
    return growth(lives, roots(lives), vma)


def test_two_children_and_a_grandchild_of_200_vmas() -> None:
    with open_capture(TRUTH / "7.3_s2-fork_truth.dat") as capture:
        events = {name: pl.DataFrame(pl.from_arrow(t)) for name, t in canonical_events(capture).items()}
    family, over_time = grown(*avc_lives(events["ev_avc"], events["ev_syscall"]))
    largest = family.row(0, named=True)
    assert (largest["anon_vmas"], largest["mms"], largest["depth"]) == (1 + 3 * 200, 4, 3)
    assert (largest["forked_vmas"], largest["reused"]) == (3 * 200, 0)
    # A VMA of the parent is on one tree, of a child on two, of the grandchild on three.
    assert largest["avcs_peak"] == 200 * (1 + 2 + 2 + 3)
    own = over_time.filter(pl.col("family_id") == 0)
    assert own["avcs"].max() == largest["avcs_peak"]
    assert own["avcs"].to_list()[-1] == 0
    assert own["ts_ns"].is_sorted()
    assert len(own) < 250


def test_an_anon_vma_of_a_dead_relative_is_used_again(rules: KernelRules) -> None:
    history = History()
    history.call(1, "mmap", (BASE, PAGE, 3, 0x22), BASE)
    history.fault(1, BASE)
    for parent, child in ((1, 2), (2, 3)):
        history.enter(parent, "fork", ())
        history.fork(parent, child)
    history.task(2, "exit")
    history.enter(3, "fork", ())
    history.fork(3, 4)
    model = reconstruct(history.events(), rules)
    rows: list[dict[str, Any]] = grown(model.lives, model.versions)[0].to_dicts()
    assert [(row["anon_vmas"], row["mms"], row["depth"]) for row in rows] == [(3, 4, 3)]
    assert [(row["forked_vmas"], row["reused"]) for row in rows] == [(3, 1)]


def test_the_report_tells_the_largest_family() -> None:
    """Three processes of 512 VMAs each, on up to three trees: 512 + 2 * 512 + 3 * 512 chains."""
    tables = analyze(SAMPLES / "fork-7.3.dat").tables
    text = " ".join(render_text(tables).split())
    assert "3,072 anon_vma_chains at once in the family of root 0x" in text
    assert "4 address spaces; forks brought 514 VMAs, each on up to 3 trees." in text
    page = json.loads(json_summary(tables))["sections"]["families"]
    assert [row["avcs_peak"] for row in page["families"]] == tables["family"]["avcs_peak"].to_pylist()[:10]
