"""The few rows of long tables that the page prints: longest walks, first missed mappings, quality by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reports import node_words
from reports.facts import COLUMNS, Facts, ranges
from reports.words import cell, provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

Kind: TypeAlias = Literal["n", "bad", "wide", ""]
MAX_MISSES: Final = 20
MAX_ROWS: Final = 200


@dataclass(frozen=True)
class Heading:
    """Head of one column; kinds: ``n`` numbers, ``bad`` numbers better 0, ``wide`` text that may wrap."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Grid:
    """A small table of unescaped strings; ``caption`` says what it shows and what it leaves out."""

    columns: Sequence[Heading]
    rows: Sequence[Sequence[str]]
    caption: str = ""


def grid(columns: str, rows: Sequence[Sequence[str]], caption: str = "") -> Grid:
    """A grid from column names in one string, each with its kind: ``name`` or ``name:n``."""
    kinds: dict[str, Kind] = {"n": "n", "bad": "bad", "wide": "wide", "": ""}
    parts = [column.strip().partition(":") for column in columns.split(",")]
    headings = [Heading(name, kinds[kind]) for name, _, kind in parts]
    cut = f"First {MAX_ROWS} of {len(rows):,} rows." if len(rows) > MAX_ROWS else ""
    return Grid(headings, rows[:MAX_ROWS], " ".join(filter(None, (caption, cut))))


def strategies(facts: Facts) -> Grid:
    """The strategy table, all columns."""
    rows = [
        [
            row["strategy"],
            *(cell(row[column]) for column, _ in COLUMNS),
            row["evidence"],
            cell(row["iterations_total"]),
        ]
        for row in facts.rows
    ]
    names = ",".join(f"{name}:{'bad' if name == 'missed' else 'n'}" for _, name in COLUMNS)
    return grid(f"strategy,{names},evidence,iterations in all:n", rows)


def nodes(facts: Facts) -> list[Grid]:
    """Walks over every node that were asked for: a table a moment."""
    names = ",".join(f"{name}:{'bad' if name == 'missed' else 'n'}" for _, name in node_words.COLUMNS)
    return [
        grid(
            f"strategy,{names}",
            [[row["strategy"], *(cell(row[column]) for column, _ in node_words.COLUMNS)] for row in rows],
            sentence,
        )
        for sentence, rows in node_words.moments(facts.nodes)
    ]


def causes(facts: Facts) -> Grid:
    """Missed mappings by strategy and cause."""
    rows = [[miss.strategy, miss.cause or "not known", str(miss.mappings)] for miss in facts.misses]
    return grid("strategy,what moved or split the VMA,mappings missed:n", rows, "Summed over all walks.")


def missed(miss: pa.Table, facts: Facts) -> Grid:
    """The first missed mappings, in the order of the table."""
    rows = [
        [
            row["strategy"],
            str(row["walk_id"]),
            f"{row['address']:#x}",
            f"{row['vm_start']:#x}-{row['vm_end']:#x}",
            row["cause_event"] or "not known",
            _seconds(row["cause_ts_ns"], facts),
            cell(row["cause_pid"]),
        ]
        for row in miss.slice(0, MAX_MISSES).to_pylist()
    ]
    caption = (
        f"{len(rows)} of {len(miss):,} rows of tables/miss.parquet. Times: seconds after the first event."
    )
    return grid("strategy,walk:n,address,VMA (end exclusive),cause,cause at s:n,by pid:n", rows, caption)


def longest_walks(facts: Facts) -> Grid:
    """The walks with most iterations: as the kernel counted, else under its own strategy, else the first.

    Where no iterations are known, the walks that took longest.
    """
    rows = [
        [
            str(row["walk_id"]),
            _seconds(row["ts_ns"], facts),
            cell(row["cpu"]),
            cell(row["pid"]),
            row["comm"] or "-",
            row["caller"] or "-",
            cell(row["loops"]),
            cell(row["iterations_total"]),
            cell(row["iterations_max"]),
            "-" if row["observed_ns"] is None else f"{row['observed_ns'] / 1e6:.3f}",
        ]
        for row in facts.worst.rows
    ]
    most = "the longest time" if facts.worst.by_time else f"most iterations in row {facts.worst.strategy}"
    caption = (
        f"The {len(rows)} walks with {most}. Times: seconds after the first event. "
        "Took: from entry to return in the capture, the probes' own cost included."
    )
    columns = "walk:n,at s:n,cpu:n,pid:n,comm:wide,caller,loops:n,iterations:n,most in a loop:n,took ms:n"
    return grid(columns, rows, caption)


def quality(facts: Facts) -> Grid:
    """Table ``quality``, rows that say the same together."""
    rows = [
        [
            note.severity,
            note.kind,
            cell(note.count),
            ranges(note.cpus) or "-",
            _seconds(note.start_ns, facts),
            _seconds(note.end_ns, facts),
            note.effect,
        ]
        for note in facts.notes
    ]
    caption = (
        "Times: seconds after the first event, from the first range to the last. "
        "-: not known, open, or not one CPU."
    )
    return grid("severity,kind,how many:n,cpu,from s:n,to s:n,effect:wide", rows, caption)


def origin(facts: Facts) -> Grid:
    """Provenance, with what only the page has room for."""
    capture = facts.capture
    first, last = capture["first_ts_ns"], capture["last_ts_ns"]
    rows = [
        *provenance(facts),
        ("recorded by", capture["tool"] or "not known"),
        ("trace clock", "no event" if first is None or last is None else f"{first} to {last} ns"),
        ("page offset", capture["page_offset_rule"] or "not known"),
    ]
    return grid("what,value:wide", rows)


def _seconds(ts_ns: int | None, facts: Facts) -> str:
    first = facts.capture["first_ts_ns"]
    return "-" if ts_ns is None or first is None else f"{(ts_ns - first) / 1e9:.6f}"
