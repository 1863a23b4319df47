"""What every document says, taken from the result tables once: text, Markdown, JSON and HTML cannot differ.

Nothing here is a result: rows are passed on, equal rows are counted together. Strings of the capture are
passed on raw; each document escapes them for its own format (`reports.escape`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.facts import splits as split_facts
from reports.facts import waits as wait_facts
from reports.facts import walks as walk_facts
from reports.facts.example import examples
from reports.facts.quantiles import distributions
from schemas.provenance import NO_NS
from schemas.walks import OBSERVED, STOCK_STRATEGY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.example import Example
    from reports.facts.quantiles import Distribution
    from reports.facts.splits import Splits
    from reports.facts.waits import Waits
    from reports.facts.walks import FirstCause, Worst

COLUMNS: Final = (
    ("time_ms_max", "Time_ms"),
    ("iterations_max", "Nr_iteration_total"),
    ("skip_addr_out_of_range_max", "Skip_addr_out_of_range"),
    ("skip_mm_mismatch_max", "Skip_mm_mismatch"),
    ("found", "found"),
    ("missed", "missed"),
)
"""Columns of ``summary`` in the strategy table, with the names that the kernel patch series gave them."""

MISS_KINDS: Final = {
    "split": "which split the VMA after the merge",
    "moved": "which moved the VMA and left its page offset",
    "stack": "stack placement by exec",
    "file": "private file mapping: page offsets are the file's",
    "lookup": "the strategy looks elsewhere",
}
"""Values of ``miss.cause_kind`` in words."""

SEVERITIES: Final = ("error", "warning", "info")


@dataclass(frozen=True)
class MissCause:
    """Missed mappings of one strategy that have one cause.

    Attributes:
        strategy: Name of the strategy.
        cause: The event that moved or split the VMA after the merge; None: not known.
        mappings: Number of missed mappings, summed over all walks.
        kind: What the event did, as in table ``miss``; None: not known.
    """

    strategy: str
    cause: str | None
    mappings: int
    kind: str | None = None

    @property
    def sentence(self) -> str:
        """Strategy, number and cause in a few words."""
        did = f", {self.did}" if self.did else ""
        if self.cause is None:
            return f"{self.strategy}: {self.mappings:,}{did or ', cause not known'}"
        return f"{self.strategy}: {self.mappings:,} by {self.cause}{did}"

    @property
    def did(self) -> str:
        """What the event did; empty: not known."""
        return MISS_KINDS.get(self.kind or "", "")


@dataclass(frozen=True)
class Note:
    """Rows of table ``quality`` whose sentences are the same, or differ only in their numbers.

    Attributes:
        severity: ``error``, ``warning`` or ``info``.
        kind: What it is, as in the table.
        effect: What it does to the results; the first row's sentence, and that there are others.
        rows: Number of rows.
        cpus: The CPUs, ascending; empty: no row is about one CPU.
        count: Sum of the rows' counts; None: at least one row does not know its count.
        start_ns: Start of the first time range, trace clock; None: open, or not a range.
        end_ns: End of the last time range, trace clock; None: open, or not a range.
    """

    severity: str
    kind: str
    effect: str
    rows: int
    cpus: tuple[int, ...]
    count: int | None
    start_ns: int | None
    end_ns: int | None

    @property
    def head(self) -> str:
        """Kind, count and CPUs in a few words."""
        details = [] if self.count is None else [f"{self.count:,}"]
        if self.cpus:
            details.append(f"cpu {ranges(self.cpus)}")
        return f"{self.kind} ({', '.join(details)})" if details else self.kind


@dataclass(frozen=True)
class Facts:
    """Everything that is said in words or in a small table.

    Attributes:
        capture: The row of table ``capture``, by column name.
        rows: Table ``summary``, one dictionary a strategy, in the order of the table.
        misses: Missed mappings by strategy and cause, most first.
        notes: Table ``quality``, equal rows together, worst first.
        firsts: For each strategy, the first event that made it miss a mapping, where one is known.
        uncertain: Walks that lost events make uncertain, by how (``facts.walks.UNCERTAIN``).
        counted: Walks by what is known of their iterations (``facts.walks.counted``).
        worst: The walks with most iterations: as the kernel counted, else under its own strategy, else the
            first in the table.
        spread: For each strategy, loops by iterations: none, 1, 2-3, 4-7 and so on.
        iterations: For each strategy, how iterations are distributed over the loops.
        holds: For each strategy, how lock holds (ns) are distributed over the loops; empty: not known.
        times: For each strategy, how durations (ns) are distributed over the walks; empty: not known.
        examples: For each strategy that misses, one missed mapping of which all is known.
        waits: Who waited for the locks; None: the capture does not tell.
        splits: Who made the VMAs of the largest trees; None: not known.
        nodes: Table ``node_summary``; empty: nobody asked for walks over every node.
        fits: Table ``time_fit``: one row; empty: no fit.
        costs: Table ``iteration_cost``.
        lost: Table ``lost``; empty: nobody waited.
        families: Table ``family``; empty: no fork made one grow.
        anon: Table ``anon_summary``; empty: no walk over an ordinary anonymous page was recorded.
        sharing: Table ``sharing``; empty: nobody asked for a limit.
        other: Table ``other_kernel``; empty: nobody asked for another kernel's rules.
        agreement: Table ``agreement``; None: nobody asked, empty: there was nothing to compare.
    """

    capture: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    misses: Sequence[MissCause]
    notes: Sequence[Note]
    firsts: Mapping[str, FirstCause]
    uncertain: Mapping[str, int]
    counted: Mapping[str, int]
    worst: Worst
    spread: Mapping[str, Sequence[int]]
    iterations: Mapping[str, Distribution]
    holds: Mapping[str, Distribution]
    times: Mapping[str, Distribution]
    examples: Mapping[str, Example]
    waits: Waits | None
    splits: Splits | None
    fits: Sequence[Mapping[str, Any]]
    costs: Sequence[Mapping[str, Any]]
    lost: Sequence[Mapping[str, Any]]
    families: Sequence[Mapping[str, Any]]
    nodes: Sequence[Mapping[str, Any]]
    anon: Sequence[Mapping[str, Any]]
    sharing: Sequence[Mapping[str, Any]]
    other: Sequence[Mapping[str, Any]]
    agreement: Sequence[Mapping[str, Any]] | None

    @property
    def ran(self) -> str | None:
        """The strategy that the kernel ran, as seen, or else what stock kernels with its tree key run."""
        native: str | None = self.capture["native_strategy"]
        return native or STOCK_STRATEGY.get(self.capture["page_offset_rule"] or "")

    @property
    def ran_words(self) -> str:
        """The same in words that say how it is known."""
        seen = self.capture["native_strategy"] is not None
        return (
            f"{self.ran}, {'which the kernel runs' if seen else 'which stock kernels with its tree key run'}"
        )

    def after(self, ts_ns: int | None) -> int | None:
        """A time of the trace clock as ns after the first event; None: not known."""
        first = self.capture["first_ts_ns"]
        return None if ts_ns is None or first is None else ts_ns - first

    def second(self, ts_ns: int) -> str:
        """A time of the trace clock in seconds after the first event, three decimals."""
        after = self.after(ts_ns)
        return "?" if after is None else f"{after / 1e9:.3f}"

    @property
    def strategies(self) -> list[str]:
        """Names in the order of table ``summary``; ``observed`` among them where the capture has it."""
        return [row["strategy"] for row in self.rows]

    @property
    def duration_ns(self) -> int | None:
        """Time from the first to the last event; None: the capture does not say, or not in ns."""
        if any(note.kind == NO_NS for note in self.notes):
            return None
        first, last = self.capture["first_ts_ns"], self.capture["last_ts_ns"]
        return None if first is None or last is None else last - first


def gather(tables: Mapping[str, pa.Table]) -> Facts:
    """Take the facts of the documents from the result tables.

    Args:
        tables: Result tables by name; ``capture`` (one row), ``summary``, ``walk``, ``loop``, ``miss``,
            ``rmap_item``, ``avc`` and ``quality`` are read; ``wait``, ``node_summary`` and those of the split
            audit where they are.
    """
    capture = tables["capture"].to_pylist()[0]
    rows = tables["summary"].to_pylist()
    names = [row["strategy"] for row in rows]
    preferred = [OBSERVED, capture["native_strategy"], "full", *names]
    return Facts(
        capture=capture,
        rows=rows,
        misses=_miss_causes(tables["miss"]),
        notes=notes(tables["quality"]),
        firsts=walk_facts.first_causes(tables["miss"], capture["first_ts_ns"]),
        uncertain=walk_facts.uncertain_walks(tables["walk"]),
        counted=walk_facts.counted(tables["walk"]),
        worst=walk_facts.worst_walks(tables["walk"], preferred),
        spread=walk_facts.spread(tables["loop"]),
        iterations=distributions(tables["loop"], "iterations"),
        holds=walk_facts.holds(tables["loop"]),
        times=walk_facts.times(tables["walk"]),
        examples=examples(tables, names),
        waits=wait_facts.waits(tables["wait"]) if "wait" in tables else None,
        splits=split_facts.splits(tables),
        fits=_rows(tables, "time_fit"),
        costs=_rows(tables, "iteration_cost"),
        lost=_rows(tables, "lost"),
        families=_rows(tables, "family"),
        nodes=_rows(tables, "node_summary"),
        anon=_rows(tables, "anon_summary"),
        sharing=_rows(tables, "sharing"),
        other=_rows(tables, "other_kernel"),
        agreement=_rows(tables, "agreement") if "agreement" in tables else None,
    )


def _rows(tables: Mapping[str, pa.Table], name: str) -> list[dict[str, Any]]:
    """All rows of a small table; none: it is not there."""
    return tables[name].to_pylist() if name in tables else []


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: ``0-3,7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _miss_causes(miss: pa.Table) -> list[MissCause]:
    counted = (
        pl.DataFrame(miss.select(["strategy", "cause_event", "cause_kind"]))
        .group_by("strategy", "cause_event", "cause_kind")
        .len("mappings")
        .sort(["mappings", "strategy", "cause_event", "cause_kind"], descending=[True, False, False, False])
        .select("strategy", "cause_event", "mappings", "cause_kind")
    )
    return [MissCause(*row) for row in counted.iter_rows()]


def notes(quality: pa.Table) -> list[Note]:
    """Table ``quality`` with equal rows together, worst first."""
    frame = pl.DataFrame(quality).with_columns(alike=pl.col("effect").str.replace_all(r"\d+", "#"))
    grouped = frame.group_by("severity", "kind", "alike", maintain_order=True).agg(
        effect=pl.when(pl.col("effect").n_unique() == 1)
        .then(pl.col("effect").first())
        .otherwise(pl.format("{} (first of {} such rows)", pl.col("effect").first(), pl.len())),
        rows=pl.len(),
        cpus=pl.col("cpu").drop_nulls().unique().sort(),
        count=pl.when(pl.col("count").is_null().any()).then(None).otherwise(pl.col("count").sum()),
        start_ns=pl.when(pl.col("start_ns").is_not_null().all()).then(pl.col("start_ns").min()),
        end_ns=pl.when(pl.col("end_ns").is_not_null().all()).then(pl.col("end_ns").max()),
    )
    rows = [
        Note(**{**row, "cpus": tuple(row["cpus"])}) for row in grouped.drop("alike").iter_rows(named=True)
    ]
    return sorted(rows, key=lambda note: SEVERITIES.index(note.severity))
