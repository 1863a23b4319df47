"""The model against the kernel: the trees of the probes, and /proc/PID/maps, from stock events alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from captures.maps import read_maps
from replay.model.agreement import agreement
from replay.model.rebuild import reconstruct
from tests.agreement import Loaded, compare, load

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

DATA = Path(__file__).parent / "data"
CAPTURES = sorted((DATA / "truth").glob("*.dat"))
DUMPS = sorted((DATA / "maps").glob("*.maps.tar.gz"))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_trees_are_the_probed_ones_at_every_instant(path: Path) -> None:
    comparison = compare(path, load(path), None)
    result = comparison.found
    assert result.instants > 0
    assert result.trees > 0
    assert result.differences.rows() == []
    assert (result.share, result.agreeing_trees, result.causes) == (1.0, result.trees, {})
    assert (comparison.is_below, comparison.is_explained) == (False, True)


def test_a_model_that_forgets_one_life_does_not_agree() -> None:
    events, rules, _ = load(DATA / "truth" / "7.3_s4-holes_truth.dat")
    lives = reconstruct(events, rules).lives
    whole = agreement(events, lives, rules, events_lost=False)
    busiest = lives["anon_vma"].value_counts().sort("count")["anon_vma"][-1]
    victim = lives.filter(pl.col("anon_vma") == busiest)["avc"][5]
    less = agreement(events, lives.filter(pl.col("avc") != victim), rules, events_lost=False)
    assert less.agreeing < whole.agreeing
    assert less.causes == {"unexplained": less.instants - less.agreeing}
    assert less.differences["surplus"].min() > 0


def caused(events: dict[str, pl.DataFrame], rules: KernelRules) -> dict[str, int]:
    """Causes of all disagreements, which add up to what does not agree."""
    result = agreement(events, reconstruct(events, rules).lives, rules, events_lost=False)
    assert result.instants - result.agreeing == sum(result.causes.values()) > 0
    table = result.table()
    assert table["instants"].sum() == result.instants
    assert table["share"].sum() == pytest.approx(1)
    return result.causes


@pytest.fixture
def holes() -> Loaded:
    return load(DATA / "truth" / "7.3_s4-holes_truth.dat")


@pytest.mark.parametrize(("of_kernel", "cause"), [(True, "no_event"), (False, "kernel_faults_not_recorded")])
def test_an_anon_vma_without_any_event_has_that_cause(holes: Loaded, of_kernel: bool, cause: str) -> None:
    """As if the kernel itself had written to the pages: the faults are not in the capture."""
    events, rules, _ = holes
    own = seen_trees(events, rules)
    touched = events["ev_fault"].join_where(
        own, pl.col("address") >= pl.col("vm_start"), pl.col("address") < pl.col("vm_end")
    )
    rest = events["ev_fault"].filter(~pl.col("seq").is_in(touched["seq"].to_list()))
    events["ev_fault"] = rest.with_columns(is_user=pl.lit(not of_kernel))
    assert cause in caused(events, rules)


def test_an_anon_vma_by_a_read_fault_has_that_cause(
    holes: Loaded,
) -> None:
    """As a read fault that the kernel tries with a huge page."""
    events, rules, _ = holes
    events["ev_fault"] = events["ev_fault"].with_columns(pl.col("error_code") & ~pl.lit(2, pl.UInt64))
    assert "huge_page_read_fault" in caused(events, rules)


def test_a_capture_that_ends_inside_of_a_call_has_that_cause(
    holes: Loaded,
) -> None:
    events, rules, _ = holes
    last = events["ev_avc"].filter(~pl.col("is_insert"))["seq"][-40]
    events = {name: frame.filter(pl.col("seq") <= last) for name, frame in events.items()}
    assert set(caused(events, rules)) == {"call_not_over"}


def test_lost_events_and_a_capture_without_faults_have_their_causes(
    holes: Loaded,
) -> None:
    events, rules, _ = holes
    events["ev_fault"] = events["ev_fault"].clear()
    lives = reconstruct(events, rules).lives
    for lost, name in ((True, "events_lost"), (False, "faults_not_recorded")):
        assert set(agreement(events, lives, rules, events_lost=lost).causes) == {name}


def seen_trees(events: dict[str, pl.DataFrame], rules: KernelRules) -> pl.DataFrame:
    """Ranges of the modelled trees."""
    return reconstruct(events, rules).lives.select("vm_start", "vm_end").unique()


def test_wrong_rules_do_not_agree() -> None:
    events, _, _ = load(DATA / "truth" / "6.12_s5-random_truth.dat")
    result = agreement(events, reconstruct(events, "7.3").lives, "7.3", events_lost=False)
    assert result.causes == {"unexplained": result.instants - result.agreeing}
    assert result.agreeing < 0.9 * result.instants


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_vmas_are_those_of_proc_maps(path: Path) -> None:
    capture = DATA / "truth" / path.name.replace(".maps.tar.gz", ".dat")
    result = compare(capture, load(capture), path)
    assert result.differing == {}
    assert result.vmas > 20


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_snapshots_show_what_the_model_has_already(path: Path) -> None:
    """Every dump but the first of a process only repeats what the model knows: nothing differs."""
    events, rules, _ = load(DATA / "truth" / path.name.replace(".maps.tar.gz", ".dat"))
    told = pl.DataFrame(pl.from_arrow(read_maps(path)))
    model = reconstruct({**events, "proc_map": told}, rules)
    assert "maps_differ" not in model.doubts
    added = model.versions.filter(pl.col("cause_event") == "maps")
    assert len(added.filter(pl.col("vm_pgoff").is_not_null())) >= 5  # what execve() maps of the program
    assert added["vm_flags"].null_count() == len(added)
    stack = added.sort("vm_start").row(-1, named=True)
    assert stack["anon_vma"] is not None
    assert stack["vm_pgoff"] is None
    key = ["vm_start", "vm_end", "born_seq"]
    blind = reconstruct(events, rules).versions
    assert blind.join(model.versions, on=key, how="anti").is_empty()
