"""The report of a fleet as plain text: ASCII, at most 72 columns, for mail and logs."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from reports.escape import ascii_only
from reports.words.sentences import cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from reports.fleet.facts import FleetFacts, Row

WIDTH: Final = 72
MAX_ROWS: Final = 10
MAX_TEXT: Final = 160

MEASURES: Final = {
    "iterations": "Iterations of an inner loop",
    "observed_ns": "Time of a walk as measured, ms",
    "predicted_ns": "Time of a walk as fitted, ms",
}


def text_of(facts: FleetFacts, *, report: str | None = None) -> str:
    """Render the report as plain text.

    Args:
        facts: What is said.
        report: Where the page lies, for the last line; None: no such line.
    """
    blocks = [
        "\n".join(["rmap_walk_ksm() replayed from a fleet of captures", *head(facts)]),
        "\n".join(_wrap(f"* {sentence}", "  ") for sentence in verdict(facts)),
        "\n".join(_strategies(facts)),
    ]
    blocks += [
        "\n".join([title, *_quantiles([row for row in facts.releases if row["measure"] == measure])])
        for measure, title in MEASURES.items()
        if any(row["measure"] == measure for row in facts.releases)
    ]
    lists = {
        "What made mappings be missed:": map(cause, facts.causes),
        "Captures with most iterations in a loop:": map(longest, facts.longest),
        "Captures with most missed mappings:": map(missing, facts.missing),
        "Captures that could not be analysed:": map(failure, facts.failures),
    }
    blocks += [_list(title, lines) for title, lines in lists.items()]
    if report is not None:
        blocks.append(_wrap(f"Full report: {ascii_only(report)}", "  "))
    return "\n\n".join(block for block in blocks if block) + "\n"


def head(facts: FleetFacts) -> list[str]:
    """How many captures, and of which kernels."""
    statuses = ", ".join(f"{number:,} {status}" for status, number in facts.statuses)
    kernels = ", ".join(f"{name or 'not known'} ({number:,})" for name, number in facts.kernels[:MAX_ROWS])
    more = len(facts.kernels) - MAX_ROWS
    lines = [f"captures {facts.captures:,}: {statuses}" if facts.statuses else "captures none"]
    if kernels:
        lines.append(f"kernels  {kernels}{f' and {more:,} more' if more > 0 else ''}")
    return [_wrap(ascii_only(line), " " * 9) for line in lines]


def verdict(facts: FleetFacts) -> list[str]:
    """The sentences that come first."""
    sentences = []
    longest_ = [
        f"{row['strategy']} {row['iterations_max']:,}"
        for row in facts.strategies
        if row["iterations_max"] is not None
    ]
    if longest_:
        sentences.append(f"Most iterations in one inner loop: {', '.join(longest_)}.")
    for row in facts.strategies:
        if row["missing"]:
            sentences.append(
                f"{row['strategy']} misses mappings in {row['missing']:,} of {row['answered']:,} captures: "
                f"{row['missed']:,} of {row['missed'] + row['found']:,}."
            )
    clean = [row for row in facts.strategies if row["missing"] == 0]
    sentences += [f"{row['strategy']} misses none in {row['answered']:,} captures." for row in clean]
    if facts.failed:
        sentences.append(f"{facts.failed:,} of {facts.captures:,} captures could not be analysed.")
    return sentences or ["No capture was analysed."]


def cause(row: Row) -> str:
    """Missed mappings by one cause."""
    by = f"by {row['cause_event']}" if row["cause_event"] else "cause not known"
    return f"{row['strategy']}: {row['captures']:,} captures, {row['mappings']:,} mappings, {by}"


def longest(row: Row) -> str:
    """A capture with many iterations."""
    time = "" if row["time_ms_max"] is None else f", longest walk {row['time_ms_max']:.3f} ms"
    return f"{row['iterations_max']:,} ({row['strategy']}{time}) {row['path']}"


def missing(row: Row) -> str:
    """A capture with missed mappings."""
    return f"{row['missed']:,} of {row['missed'] + row['found']:,} ({row['strategy']}) {row['path']}"


def failure(row: Row) -> str:
    """Captures that failed alike."""
    return f"{row['captures']:,} {row['status']} ({row['error']}): {row['what']}; first: {row['path']}"


def quantile(row: Mapping[str, object], name: str) -> str:
    """One quantile as it is printed: times in milliseconds."""
    value = row[name]
    if not isinstance(value, int):
        return "-"
    return f"{value:,}" if row["measure"] == "iterations" else f"{value / 1e6:,.3f}"


def _strategies(facts: FleetFacts) -> list[str]:
    columns = ("captures", "walks", "loops", "iterations_max", "missing", "missed")
    names = ("captures", "walks", "loops", "iter. max", "misses in", "missed")
    lines = ["strategy  " + "".join(f"{name:>10}" for name in names)]
    for row in facts.strategies:
        name = ascii_only(row["strategy"])
        if len(name) > 9:
            lines.append(name[: WIDTH - 1])
            name = ""
        lines.append(f"{name:<10}" + "".join(f"{cell(row[column]):>10}" for column in columns))
    return [
        *lines,
        "misses in: captures in which mappings are missed. -: not known.",
    ]


def _quantiles(rows: Sequence[Row]) -> list[str]:
    lines = []
    release: str | None = ""
    for row in rows:
        if row["kernel_release"] != release:
            release = row["kernel_release"]
            name = ascii_only(release or "kernel not known")[:34]
            lines.append(f"  {name:<34}{'50 %':>11}{'90 %':>11}{'99 %':>11}")
        numbers = "".join(f"{quantile(row, name):>11}" for name in ("p50", "p90", "p99"))
        lines.append(f"    {ascii_only(row['strategy'])[:31]:<32}{numbers}")
    return lines[: 4 * MAX_ROWS]


def _list(title: str, values: Iterable[str]) -> str:
    lines = [_wrap(f"  {_cut(value)}", "    ") for value in values]
    if not lines:
        return ""
    more = [f"  ({len(lines) - MAX_ROWS:,} more)"] if len(lines) > MAX_ROWS else []
    return "\n".join([title, *lines[:MAX_ROWS], *more])


def _cut(value: str) -> str:
    text = ascii_only(value)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 14]}... (cut here)"


def _wrap(text: str, indent: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False))
