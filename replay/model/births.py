"""Which tasks and mappings the capture saw coming into being: forks, what calls mapped, what forks copied."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.model.kinds import (
    OP_BRK,
    OP_EXEC,
    OP_EXIT,
    OP_FORK,
    OP_GROW,
    OP_MMAP,
    OP_MMAP_POPULATE,
    OP_MOVE,
    OP_MOVE_MANY,
    OP_THREAD,
)
from replay.state import kernel as k

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KINDS: Final = (
    *(OP_BRK, OP_EXEC, OP_EXIT, OP_FORK, OP_GROW),
    *(OP_MMAP, OP_MMAP_POPULATE, OP_MOVE, OP_MOVE_MANY, OP_THREAD),
)


def births(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Forks and threads, with ``call`` and ``flags``; without clone_flags, the call that made the task tells.

    ``flags`` null: nothing tells.
    """
    ev_task = events["ev_task"]
    kind = "newtask" if (ev_task["kind"] == "newtask").any() else "fork"
    made = ev_task.filter((pl.col("kind") == kind) & pl.col("child_pid").is_not_null())
    calls = (
        events["ev_syscall"]
        .filter(pl.col("pid").is_in(made["pid"].unique().implode()))
        .with_columns(pending=~pl.col("is_exit") & ~pl.col("name").is_in(("exit", "exit_group")))
        .select("pid", "seq", "arg0", call=pl.when("pending").then("name"))
        .sort("seq")
    )
    born = made.sort("seq").join_asof(calls, on="seq", by="pid", check_sortedness=False)
    told = (
        pl.when(pl.col("call") == "fork")
        .then(0)
        .when(pl.col("call") == "vfork")
        .then(k.CLONE_VM)
        .when(pl.col("call").is_not_null() & (pl.col("call") != "clone3"))
        .then("arg0")
    )
    return born.with_columns(flags=pl.coalesce(pl.col("clone_flags"), told.cast(pl.UInt64)))


class Ranges:
    """Pages that were ever mapped by a call, as ranges apart from each other; nothing is taken out."""

    def __init__(self, starts: list[int] | None = None, ends: list[int] | None = None) -> None:
        self.starts, self.ends = list(starts or ()), list(ends or ())
        self.brk: int | None = None

    def copy(self) -> Ranges:
        """What a forked process has."""
        child = Ranges(self.starts, self.ends)
        child.brk = self.brk
        return child

    def add(self, start: int, end: int) -> None:
        """Pages ``[start, end)`` too."""
        low, high = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if low < high:
            start, end = min(start, self.starts[low]), max(end, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [start], [end]

    def overlap(self, start: int, end: int) -> bool:
        """Whether any page of ``[start, end)`` is there."""
        at = bisect_right(self.ends, start)
        return at < len(self.ends) and self.starts[at] < end


def seen_births(operations: pl.DataFrame, questions: pl.DataFrame) -> pl.Series:
    """Whether a range holds pages of which the capture saw the mapping call, in that process or one above it.

    Args:
        operations: ``model.ops.operations``.
        questions: ``pid``, ``place``, ``start``, ``end`` (pages, end exclusive); operations up to ``place``
            count.

    Returns:
        One answer a row of ``questions``.
    """
    asked = questions.with_row_index("number").sort("place")
    answers = [False] * len(questions)
    spaces: dict[int, Ranges] = {}
    rows = operations.filter(pl.col("kind").is_in(_KINDS)).sort("seq")
    steps = rows.select("seq", "pid", "kind", "a", "b", "c", "d").iter_rows()
    step = next(steps, None)
    for number, pid, place, start, end in asked.select("number", "pid", "place", "start", "end").iter_rows():
        while step is not None and step[0] <= place:
            _take(spaces, *step[1:])
            step = next(steps, None)
        answers[number] = pid in spaces and spaces[pid].overlap(start, end)
    return pl.Series("seen", answers, dtype=pl.Boolean)


def _take(spaces: dict[int, Ranges], pid: int, kind: int, a: int, b: int, c: int, d: int) -> None:
    """One operation."""
    if kind == OP_EXEC:
        spaces.pop(a, None)
    space = spaces.setdefault(pid, Ranges())
    if kind == OP_FORK:
        spaces[a] = space.copy()
    elif kind == OP_THREAD:
        spaces[a] = space
    elif kind in (OP_EXEC, OP_EXIT):
        del spaces[pid]
    elif kind == OP_BRK:
        if space.brk is not None and a > space.brk:
            space.add(space.brk, a)
        space.brk = a
    else:
        for start, end in _made(space, kind, a, b, c, d):
            space.add(start, end)


def _made(space: Ranges, kind: int, a: int, b: int, c: int, d: int) -> Iterator[tuple[int, int]]:
    """The range that a call maps; one that it moves counts if what it moves does."""
    if kind in (OP_MMAP, OP_MMAP_POPULATE):
        yield a, b
    elif kind == OP_GROW:
        if space.overlap(a, a + 1):
            yield a, b
    elif space.overlap(a, a + max(b, 1)):
        yield d, d + c
