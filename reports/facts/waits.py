"""Who waited for the locks of anon_vma families, doing what, and how much of it while a walk ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

MAX_WALKS: Final = 10


@dataclass(frozen=True)
class Waits:
    """Waits for the lock of a family; times in ns.

    Attributes:
        count: Waits to change the family's trees.
        lost_ns: What they took together.
        behind_ns: The part of it during which a walk of that family ran.
        longest_ns: The longest; None: no wait has its end in the capture.
        unfinished: Waits whose end is not in the capture.
        groups: By task name, what it waits in and for what: ``comm, doing, is_write, waits, tasks, lost_ns,
            longest_ns, behind_ns``, most time lost first.
        walks: The walks behind which most time was lost: ``walk_id, waits, tasks, lost_ns, longest_ns``.
    """

    count: int
    lost_ns: int
    behind_ns: int
    longest_ns: int | None
    unfinished: int
    groups: Sequence[Mapping[str, Any]]
    walks: Sequence[Mapping[str, Any]]

    @property
    def sentences(self) -> list[str]:
        """What it comes to."""
        if not self.count:
            return ["No task waited to change an anon_vma family's trees."]
        share = 100 * self.behind_ns / self.lost_ns if self.lost_ns else 0
        said = f"{self.count:,} waits to change an anon_vma family's trees lost {self.lost_ns / 1e6:,.3f} ms"
        longest = "" if self.longest_ns is None else f"; the longest took {self.longest_ns / 1e6:,.3f} ms"
        return [f"{said}, {share:.1f} % of it while a walk of that family ran{longest}."]

    @property
    def lines(self) -> list[str]:
        """What it comes to, then a line for each task and call, most time lost first."""
        return [*self.sentences, *(self._line(row) for row in self.groups if row["is_write"])]

    @staticmethod
    def _line(row: Mapping[str, Any]) -> str:
        who = row["comm"] or "task not known"
        where = f" in {row['doing']}" if row["doing"] else ""
        longest = "" if row["longest_ns"] is None else f", longest {row['longest_ns'] / 1e6:,.3f} ms"
        return f"{who}{where}: {row['waits']:,} waits, {row['lost_ns'] / 1e6:,.3f} ms{longest}"


def waits(wait: pa.Table) -> Waits:
    """Add up table ``wait``."""
    frame = pl.DataFrame(wait).with_columns(took=pl.col("end_ns") - pl.col("ts_ns"))
    writers = frame.filter("is_write")
    sums = {
        "waits": pl.len(),
        "tasks": pl.col("pid").n_unique(),
        "lost_ns": pl.col("took").sum(),
        "longest_ns": pl.col("took").max(),
    }
    groups = (
        frame.group_by("comm", "doing", "is_write")
        .agg(**sums, behind_ns=pl.col("behind_walks_ns").sum())
        .sort(
            ["lost_ns", "comm", "doing", "is_write"], descending=[True, False, False, True], nulls_last=True
        )
    )
    walks = (
        writers.drop_nulls("walk_id")
        .group_by("walk_id")
        .agg(**sums)
        .sort(["lost_ns", "walk_id"], descending=[True, False])
        .head(MAX_WALKS)
    )
    longest = writers["took"].max()
    return Waits(
        count=len(writers),
        lost_ns=int(writers["took"].sum()),
        behind_ns=int(writers["behind_walks_ns"].sum()),
        longest_ns=longest if isinstance(longest, int) else None,
        unfinished=frame["end_ns"].null_count(),
        groups=groups.to_dicts(),
        walks=walks.to_dicts(),
    )
