"""The model against the kernel: the trees of the probes, and /proc/PID/maps, from stock events alone."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from captures.maps import read_maps
from replay.agreement import agreement
from replay.model import reconstruct

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replay.model_rules import KernelRules

VM_SHARED = 8
DATA = Path(__file__).parent / "data"
CAPTURES = sorted((DATA / "truth").glob("*.dat"))
DUMPS = sorted((DATA / "maps").glob("*.maps.tar.gz"))


def load(path: Path) -> tuple[dict[str, pl.DataFrame], KernelRules]:
    with open_capture(path) as capture:
        assert capture.info.events_lost == 0
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    return events, "7.3" if events["ev_avc"]["anon_pgoff"].is_not_null().any() else "6.12"


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_trees_are_the_probed_ones_at_every_instant(path: Path) -> None:
    events, rules = load(path)
    stock = {name: events[name] for name in ("ev_syscall", "ev_task", "ev_fault")}
    model = reconstruct(stock, rules)
    result = agreement(events, model.lives, rules, events_lost=False)
    print(f"{path.name}: {result.agreeing} of {result.instants} instants, {result.trees} trees")
    assert result.instants > 0
    assert result.trees > 0
    assert result.differences.rows() == []
    assert (result.share, result.agreeing_trees, result.causes) == (1.0, result.trees, {})


def test_a_model_that_forgets_one_life_does_not_agree() -> None:
    events, rules = load(DATA / "truth" / "7.3_s4-holes_truth.dat")
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
def holes() -> tuple[dict[str, pl.DataFrame], KernelRules]:
    return load(DATA / "truth" / "7.3_s4-holes_truth.dat")


def test_an_anon_vma_without_any_event_has_that_cause(
    holes: tuple[dict[str, pl.DataFrame], KernelRules],
) -> None:
    """As if the kernel itself had written to the pages (O_DIRECT): the faults are not in the capture."""
    events, rules = holes
    own = seen_trees(events, rules)
    touched = events["ev_fault"].join_where(
        own, pl.col("address") >= pl.col("vm_start"), pl.col("address") < pl.col("vm_end")
    )
    events["ev_fault"] = events["ev_fault"].filter(~pl.col("seq").is_in(touched["seq"].to_list()))
    assert "no_event" in caused(events, rules)


def test_an_anon_vma_by_a_read_fault_has_that_cause(
    holes: tuple[dict[str, pl.DataFrame], KernelRules],
) -> None:
    """As a read fault that the kernel tries with a huge page."""
    events, rules = holes
    events["ev_fault"] = events["ev_fault"].with_columns(pl.col("error_code") & ~pl.lit(2, pl.UInt64))
    assert "huge_page_read_fault" in caused(events, rules)


def test_a_capture_that_ends_inside_of_a_call_has_that_cause(
    holes: tuple[dict[str, pl.DataFrame], KernelRules],
) -> None:
    events, rules = holes
    last = events["ev_avc"].filter(~pl.col("is_insert"))["seq"][-40]
    events = {name: frame.filter(pl.col("seq") <= last) for name, frame in events.items()}
    assert set(caused(events, rules)) == {"call_not_over"}


def test_lost_events_and_a_capture_without_faults_have_their_causes(
    holes: tuple[dict[str, pl.DataFrame], KernelRules],
) -> None:
    events, rules = holes
    events["ev_fault"] = events["ev_fault"].clear()
    lives = reconstruct(events, rules).lives
    for lost, name in ((True, "events_lost"), (False, "faults_not_recorded")):
        assert set(agreement(events, lives, rules, events_lost=lost).causes) == {name}


def seen_trees(events: dict[str, pl.DataFrame], rules: KernelRules) -> pl.DataFrame:
    """Ranges of the modelled trees."""
    return reconstruct(events, rules).lives.select("vm_start", "vm_end").unique()


def test_wrong_rules_do_not_agree() -> None:
    events, _ = load(DATA / "truth" / "6.12_s5-random_truth.dat")
    result = agreement(events, reconstruct(events, "7.3").lives, "7.3", events_lost=False)
    assert result.causes == {"unexplained": result.instants - result.agreeing}
    assert result.agreeing < 0.9 * result.instants


class Mapping(NamedTuple):
    """One line of /proc/PID/maps: bytes, end exclusive; file offset of what has a file."""

    start: int
    end: int
    prot: int
    offset: int | None


def dumps(path: Path) -> Iterator[tuple[str, int, int, int, list[Mapping]]]:
    """Name, pid, time before and after, lines."""
    line = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])[ps] ([0-9a-f]+) \S+ (\d+)")
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode()
            pid, before, after = (
                int(re.findall(rf"{key}=(\d+)", text)[0]) for key in ("pid", "mono_ns_start", "mono_ns_end")
            )
            lines = [
                Mapping(
                    int(start, 16),
                    int(end, 16),
                    (read == "r") | (write == "w") << 1 | (execute == "x") << 2,
                    int(offset, 16) if int(inode) else None,
                )
                for start, end, read, write, execute, offset, inode in line.findall(text)
            ]
            yield member.name, pid, before, after, lines


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_vmas_are_those_of_proc_maps(path: Path) -> None:
    events, rules = load(DATA / "truth" / path.name.replace(".maps.tar.gz", ".dat"))
    versions = reconstruct(events, rules).versions
    compared = 0
    for name, pid, before, after, lines in dumps(path):
        own = versions.filter(
            (pl.col("mm") == mm_of(versions, events, pid, before))
            & (pl.col("born_ts_ns") <= before)
            & (pl.col("died_ts_ns").is_null() | (pl.col("died_ts_ns") > after))
        ).to_dicts()
        ours = {(each["vm_start"], each["vm_end"], each["vm_flags"] & 7): each for each in own}
        # What execve() maps is not in stock events: it lies below the heap and above what mmap() gives.
        low, high = min(start for start, _, _ in ours), max(end for _, end, _ in ours)
        theirs = {each[:3]: each for each in lines if low <= each.start and each.end <= high}
        assert ours.keys() == theirs.keys(), name
        for key, line in theirs.items():
            if line.offset is not None and not ours[key]["vm_flags"] & VM_SHARED:
                assert ours[key]["vm_pgoff"] * 4096 == line.offset, name
        compared += len(ours)
    assert compared > 20


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_snapshots_show_what_the_model_has_already(path: Path) -> None:
    """Every dump but the first of a process only repeats what the model knows: nothing differs."""
    events, rules = load(DATA / "truth" / path.name.replace(".maps.tar.gz", ".dat"))
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


def mm_of(versions: pl.DataFrame, events: dict[str, pl.DataFrame], pid: int, ts_ns: int) -> int:
    """The mm of a task: of what it mapped last before a time, or of its fork."""
    forks = events["ev_task"].filter((pl.col("kind") == "newtask") & (pl.col("child_pid") == pid))["seq"]
    copied = versions.filter(pl.col("born_seq").is_in(forks.to_list()))
    forked = pl.col("cause_event").is_in(["clone", "clone3", "fork", "vfork"])
    own = versions.filter((pl.col("pid") == pid) & (pl.col("born_ts_ns") <= ts_ns) & ~forked)
    return int(pl.concat([copied, own]).sort("born_seq")["mm"][-1])
