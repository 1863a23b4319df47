"""The sentences of the documents, filled with numbers of the tables: verdict, meanings, provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reports import node_words
from reports.facts import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.facts import Facts

EVIDENCE: Final = {
    "observed": "what the kernel did, as far as the capture holds its counts and times",
    "replayed": "computed from the recorded changes of the interval trees",
    "modelled": "computed from trees rebuilt by the kernel's rules from stock tracepoints",
    "predicted": "computed; the capture holds less than this strategy needs to be certain",
}
"""Values of ``summary.evidence`` in words; the order is from the strongest to the weakest."""


def verdict(facts: Facts) -> list[str]:
    """The sentences that come first: the longest loops, and what is missed.

    A strategy is said to miss none only where as many mappings are answered for it as for any other.
    """
    asked = [row for row in facts.rows if row["strategy"] != OBSERVED]
    if not asked:
        return ["No strategy was replayed."]
    if not any(row["walks"] for row in asked):
        predicted = node_words.verdict(facts.nodes)
        nothing = "" if predicted else ": there is nothing to compare"
        return [f"The capture holds no walk of rmap_walk_ksm(){nothing}.", *predicted]
    sentences = []
    longest = [
        f"{r['strategy']} {_number(r['iterations_max'])}" for r in asked if r["iterations_max"] is not None
    ]
    if longest:
        sentences.append(f"Most iterations in one inner loop: {', '.join(longest)}.")
    answered = [row for row in asked if row["found"] is not None and row["missed"] is not None]
    mappings = max((row["found"] + row["missed"] for row in answered), default=0)
    clean = []
    for row in answered:
        known = row["found"] + row["missed"]
        if row["missed"] == 0 and known == mappings:
            clean.append(row["strategy"])
            continue
        misses = _number(row["missed"]) if row["missed"] else "none"
        rest = f"; of {_number(mappings - known)} more it is not known" if known < mappings else ""
        first = facts.firsts.get(row["strategy"])
        why = f"; first cause: {first.words}" if row["missed"] and first is not None else ""
        sentences.append(f"{row['strategy']} misses {misses} of {_number(known)} mappings{rest}{why}.")
    if answered and not mappings:
        sentences.append("No walk finds a mapping, under any strategy.")
    elif clean:
        sentences.append(f"{_and(clean)} {'misses' if len(clean) == 1 else 'miss'} none.")
    unknown = [row["strategy"] for row in asked if row["missed"] is None or row["found"] is None]
    if unknown:
        sentences.append(f"What {_and(unknown)} would miss is not known.")
    return sentences


def evidence(facts: Facts) -> list[tuple[str, str]]:
    """The evidence words that the rows carry, strongest first, each with its meaning."""
    used = {row["evidence"] for row in facts.rows}
    return [(word, meaning) for word, meaning in EVIDENCE.items() if word in used]


def provenance(facts: Facts) -> list[tuple[str, str]]:
    """Where the numbers come from: label and value, in the order of printing."""
    capture = facts.capture
    lost = capture["events_lost"]
    kernel = [capture["kernel_release"] or "kernel not known", capture["arch"] or "arch not known"]
    kernel.append(f"{capture['cpus']} cpu{'s' if capture['cpus'] != 1 else ''}")
    if capture["hostname"]:
        kernel.append(f"host {capture['hostname']}")
    if capture["native_strategy"]:
        kernel.append(f"own strategy {capture['native_strategy']}")
    duration = facts.duration_ns
    events = [
        "duration not known" if duration is None else f"{duration / 1e9:.3f} s",
        f"{_number(capture['events'])} events",
        f"{_number(capture['events_decoded'])} decoded",
        "events lost, how many is not known" if lost is None else f"{_number(lost)} lost",
    ]
    if capture["truncated"]:
        events.append("file truncated")
    walks = max((row["walks"] or 0 for row in facts.rows), default=0)
    loops = max((row["loops"] or 0 for row in facts.rows), default=0)
    return [
        ("capture", f"{capture['path']} ({capture['format']}, {_number(capture['size_bytes'])} bytes)"),
        ("sha256", capture["sha256"]),
        ("kernel", ", ".join(kernel)),
        ("events", ", ".join(events)),
        ("clock", capture["clock"] or "not known"),
        ("walks", f"{_number(walks)} of rmap_walk_ksm(), {_number(loops)} inner loops"),
        ("replay", capture["replay_version"]),
    ]


def worst_walks(facts: Facts, most: int) -> tuple[str, list[str]]:
    """A heading and one line for each of the worst walks, at most ``most``."""
    lines = []
    first, native = facts.capture["first_ts_ns"], facts.capture["native_strategy"]
    ran = facts.worst.by_time or facts.worst.strategy in (OBSERVED, native)
    under = "" if ran else f" under {native}" if native else " in the kernel"
    for row in facts.worst.rows[:most]:
        parts = [f"walk {row['walk_id']}"]
        if first is not None:
            parts[0] += f" at {(row['ts_ns'] - first) / 1e9:.3f} s"
        if row["pid"] is not None:
            parts.append(f"pid {row['pid']}" + (f" {row['comm']}" if row["comm"] else ""))
        if row["caller"] is not None:
            parts.append(row["caller"])
        if row["iterations_total"] is not None:
            parts.append(f"{_number(row['iterations_total'])} iterations in {_number(row['loops'])} loops")
        if row["observed_ns"] is not None:
            parts.append(f"took {row['observed_ns'] / 1e6:.3f} ms{under}")
        lines.append(", ".join(parts))
    how = "longest time" if facts.worst.by_time else f"most iterations, row {facts.worst.strategy}"
    return f"Worst walks ({how}):", lines


def measures(facts: Facts) -> list[str]:
    """What the columns of the strategy table mean."""
    sentences = [
        "Nr_iteration_total to Skip_mm_mismatch: maxima, each over all inner loops; Time_ms: longest walk.",
        "found, missed: mappings, summed over the walks. -: not known.",
    ]
    timed = {row["strategy"] for row in facts.rows if row["time_ms_max"] is not None}
    if OBSERVED in timed:
        sentences.append("Time_ms of row observed is measured.")
    if timed - {OBSERVED}:
        sentences.append("Time_ms of a strategy is a fit to the durations of this capture's walks.")
    return sentences


def cell(value: float | None) -> str:
    """One number of a table: ``-`` for null, milliseconds with three decimals, counts as they are."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _number(value: int) -> str:
    return f"{value:,}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
