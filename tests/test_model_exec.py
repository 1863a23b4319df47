"""What execve() maps and how stacks grow: by perf's records, snapshots and faults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from captures.maps import known_maps
from replay.model.agreement import boundaries, probed_changes, probed_lives
from replay.model.rebuild import Modelled, reconstruct
from tests.model_machine import PAGE, History
from tests.test_model import check
from tests.test_model_golden import P, mapped, page, ranges
from tests.test_model_rules import alive, model

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

# Recorded with ``perf record -d``, with tree probes: a shell starts a program, which is task PROGRAM.
RECORDED = Path(__file__).parent / "data" / "perf" / "sample_identifier.perf.data.xz"
PROGRAM = 297
STACK = "[stack]"


@pytest.fixture(scope="module")
def capture() -> dict[str, pl.DataFrame]:
    with open_capture(RECORDED) as opened:
        tables = canonical_events(opened)
        tables["proc_map"] = known_maps(opened, tables["ev_marker"], None)
        return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in tables.items()}


@pytest.fixture(scope="module")
def rebuilt(capture: dict[str, pl.DataFrame]) -> Modelled:
    return reconstruct(capture, "7.3")


def test_trees_of_a_program_are_those_of_the_probes_from_exec_on(
    capture: dict[str, pl.DataFrame], rebuilt: Modelled
) -> None:
    """All but where the kernel wrote to the data inside of execve(): its faults are not in the capture."""
    probed = probed_lives(probed_changes(capture["ev_avc"], boundaries(capture))).filter(
        pl.col("pid") == PROGRAM
    )
    key = ["vm_start", "vm_end", "first_pgoff", "born", "died"]
    missing = probed.join(rebuilt.lives, on=key, how="anti")
    calls = capture["ev_syscall"].filter((pl.col("pid") == PROGRAM) & (pl.col("name") == "execve"))
    entered = calls.filter(~pl.col("is_exit"))["seq"].to_list()
    left = capture["ev_task"].filter((pl.col("kind") == "exec") & (pl.col("pid") == PROGRAM))["seq"].to_list()
    inside = pl.any_horizontal(pl.col("seq").is_between(*span) for span in zip(entered, left, strict=True))
    # Of two programs: the segment of data that ends with what is to be zeroed.
    assert missing.select("vm_start", "vm_end").rows() == [(0x5E5000, 0x5EF000), (0x4BB000, 0x4C2000)]
    assert missing.select(inside.all()).item()
    stacks = probed.filter(pl.col("first_pgoff") == 0x7FFFFFFDE)
    assert stacks.join(rebuilt.lives, on=key, how="semi")["vm_end"].to_list() == [
        0x7FFE048C2000,
        0x7FFD0370F000,
    ]


def test_without_the_records_the_stacks_are_said_to_be_unknown(capture: dict[str, pl.DataFrame]) -> None:
    blind = {name: frame for name, frame in capture.items() if name != "proc_map"}
    assert reconstruct(blind, "7.3").doubts["stack_unknown"] == 2


def test_the_records_of_calls_are_what_the_model_made_of_them(
    capture: dict[str, pl.DataFrame], rebuilt: Modelled
) -> None:
    """The kernel writes down the VMA that mmap(), brk() or mprotect() left, merged or split."""
    records = capture["proc_map"].filter("is_record", pl.col("pid") == PROGRAM).sort("place")
    returns = capture["ev_syscall"].filter("is_exit", pl.col("pid") == PROGRAM).select("pid", "seq", "name")
    own = records.join_asof(
        returns, left_on="place", right_on="seq", by="pid", strategy="forward", check_sortedness=False
    ).filter(pl.col("name_right").is_in(["mmap", "brk", "mprotect"]))
    found = own.join(rebuilt.versions, left_on=["vm_start", "vm_end"], right_on=["vm_start", "vm_end"])
    found = found.filter(
        pl.col("born_seq") <= pl.col("seq"), (pl.col("died_seq") > pl.col("seq")).fill_null(True)
    )
    same = pl.col("vm_pgoff").is_null() | (pl.col("vm_pgoff") == pl.col("pgoff"))
    assert len(own) > 100
    assert found.select("place").equals(own.select("place"))
    assert found.select(same.all()).item()


def record(history: History, first: int, last: int, pgoff: int, **more: Any) -> None:
    history.record(P, {"vm_start": page(first), "vm_end": page(last), "pgoff": pgoff, **more})


def test_what_execve_maps_is_there_when_it_is_over(history: History, rules: str) -> None:
    """The stack is made at the highest address and moved; the first segment is recorded too long."""
    mapped(history, 0, 4)
    history.enter(P, "execve", ())
    record(history, 990, 991, page(990) // PAGE)  # where the arguments are copied to
    record(history, 500, 533, page(958) // PAGE, name=STACK)
    record(history, 100, 140, 0, file="program", prot=1)
    record(history, 110, 120, 10, file="program", prot=5)
    record(history, 120, 124, 20, file="program")
    record(history, 124, 126, page(124) // PAGE)
    history.fault(P, page(123))  # the kernel zeroes what is behind the data
    history.task(P, "exec")
    history.leave(P, "execve", 0)
    found = model(history, rules)
    assert ranges(found, 2) == [(100, 110), (110, 120), (120, 124), (124, 126), (500, 533)]
    data, stack = (each for each in alive(found, 2) if each["anon_vma"] is not None)
    assert (data["vm_start"], data["vm_pgoff"]) == (page(120), 20)
    assert (stack["vm_start"], stack["vm_pgoff"]) == (page(500), page(958) // PAGE)
    firsts = dict(found.lives.select("vm_start", "first_pgoff").rows())
    assert firsts[page(120)] == (page(120) // PAGE if rules == "7.3" else 20)
    assert found.doubts == {}


def test_perfs_own_exec_comes_before_what_is_mapped(history: History, rules: str) -> None:
    history.enter(P, "execve", ())
    history.task(P, "exec")
    record(history, 990, 991, page(990) // PAGE)
    record(history, 500, 533, page(958) // PAGE, name=STACK)
    record(history, 100, 110, 0, file="program", prot=5)
    history.leave(P, "execve", 0)
    assert ranges(model(history, rules)) == [(100, 110), (500, 533)]


def test_records_inside_of_calls_that_the_model_follows_are_not_needed(history: History, rules: str) -> None:
    history.enter(P, "mmap", (0, 2 * PAGE, 3, 0x22, 2**32 - 1, 0))
    record(history, 4, 6, page(4) // PAGE)
    history.leave(P, "mmap", page(4))
    history.enter(P, "ioctl", ())  # a driver maps something
    record(history, 8, 9, 0, file="device", is_shared=True)
    history.leave(P, "ioctl", 0)
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(4, 6), (8, 9)], {})
    assert found.versions["cause_event"].to_list() == ["mmap", "maps"]


@pytest.mark.parametrize("write", [True, False])
def test_any_fault_below_makes_a_stack_grow(history: History, rules: str, write: bool) -> None:
    """expand_stack() is called before the fault is looked at; the anon_vma is there before it grows."""
    mapped(history, 1000, 1002, flags=0x132)
    history.fault(P, page(990), write=write)
    found = model(history, rules)
    assert ranges(found) == [(990, 1002)]
    assert found.lives.filter(pl.col("died_seq").is_null())["first_pgoff"].to_list() == [page(990) // PAGE]


@pytest.mark.parametrize(
    ("below", "prot", "flags", "grows"),
    [(744, 3, 0x32, False), (743, 3, 0x32, True), (744, 0, 0x32, True), (744, 3, 0x132, True)],
    ids=["in-gap", "at-gap", "inaccessible", "stack"],
)
def test_a_stack_keeps_its_distance(
    history: History, rules: str, below: int, prot: int, flags: int, grows: bool
) -> None:
    """stack_guard_gap, 256 pages: to what is accessible and no stack."""
    mapped(history, 1100, 1102, flags=0x132)
    history.call(P, "mmap", (page(below), PAGE, prot, flags, 2**32 - 1, 0), page(below))
    history.fault(P, page(1000))
    found = model(history, rules)
    assert ranges(found)[1] == ((1000, 1102) if grows else (1100, 1102))
    assert found.lives.is_empty() is not grows


def test_a_stack_beyond_the_usual_limit_is_a_doubt(history: History, rules: str) -> None:
    """Nothing tells RLIMIT_STACK; expand_downwards() makes the anon_vma before it asks for that."""
    mapped(history, 3000, 3002, flags=0x132)
    history.fault(P, page(3002 - 2048))
    assert ranges(model(history, rules)) == [(3002 - 2048, 3002)]
    history.fault(P, page(3002 - 2049))
    found = model(history, rules)
    assert ranges(found) == [(3002 - 2048, 3002)]
    assert found.doubts == {"stack_limit_unknown": 1}


def test_a_snapshot_of_a_stack_that_has_grown_keeps_its_tree(history: History, rules: str) -> None:
    """As where page faults are not recorded."""
    history.task(P, "exec")
    for first in (500, 490):
        history.snapshot(P, [{"vm_start": page(first), "vm_end": page(533), "name": STACK}])
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(490, 533)], {})
    assert found.versions["anon_vma"].unique().to_list() == [1]


def test_a_snapshot_holds_behind_the_event_at_its_place(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    history.snapshot(P, [{"vm_start": page(0), "vm_end": page(4), "vm_flags": 0x100073}], behind=True)
    found = model(history, rules)
    assert (ranges(found), found.versions["cause_event"].to_list()) == ([(0, 4)], ["mmap"])


def test_a_snapshot_read_behind_an_exec_is_newer_than_what_that_mapped(
    history: History, rules: KernelRules
) -> None:
    """Whatever their numbers: markers in the trace are read before perf's records."""
    line = {"vm_start": page(0), "vm_end": page(4), "file": "a", "pgoff": 0}
    history.enter(P, "execve", ())
    history.record(P, line | {"prot": 1})
    history.task(P, "exec")
    history.snapshot(P, [line | {"vm_flags": 0x73}], whole=False, behind=True)
    for each in history.maps:
        each["snapshot"] = 1 - each["snapshot"]
    found = check(history.events(), rules)
    kept = found.versions.filter(pl.col("died_seq").is_null())
    assert kept.select("vm_start", "vm_end", "vm_flags").rows() == [(page(0), page(4), 0x73)]
    assert found.doubts["maps_differ"] == 1
