"""The sentences of the documents, filled with numbers of the tables: verdict, meanings, provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.facts.walks import UNCERTAIN
from reports.words import anon as anon_words
from reports.words import nodes as node_words
from reports.words import times as time_words
from schemas.walks import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.facts.all import Facts

EVIDENCE: Final = {
    "observed": "what the kernel did, as far as the capture holds its counts and times",
    "replayed": "computed from the recorded changes of the interval trees",
    "modelled": "computed from trees rebuilt by the kernel's rules from stock tracepoints",
    "predicted": "computed; the capture holds less than this strategy needs to be certain",
}
"""Values of ``summary.evidence`` in words; the order is from the strongest to the weakest."""


def verdict(facts: Facts) -> list[str]:
    """The sentences that come first: what is missed and since when, what walks cost, who waited for them."""
    asked = [row for row in facts.rows if row["strategy"] != OBSERVED]
    relatives = anon_words.verdict(facts.anon)
    if not asked:
        predicted = [*node_words.verdict(facts.nodes), *relatives]
        return predicted or ["No walk could be replayed: `replay inspect CAPTURE` says what to record."]
    if not any(row["walks"] for row in asked):
        predicted = [*node_words.verdict(facts.nodes), *relatives]
        nothing = "" if predicted else ": there is nothing to compare"
        return [f"The capture holds no walk of rmap_walk_ksm(){nothing}.", *predicted]
    waited = facts.waits.sentences if facts.waits is not None and facts.waits.count else []
    return [*_uncertain(facts), *misses(facts), *_bounds(facts), *_cost(facts, asked), *waited, *relatives]


def misses(facts: Facts) -> list[str]:
    """What each strategy misses, most first, and what is not known of it.

    A strategy is said to miss none only where as many mappings are answered for it as for any other.
    """
    asked = [row for row in facts.rows if row["strategy"] != OBSERVED and row["walks"]]
    answered = [row for row in asked if row["found"] is not None and row["missed"] is not None]
    mappings = max((row["found"] + row["missed"] for row in answered), default=0)
    clean, sentences = [], []
    for row in sorted(answered, key=lambda row: -row["missed"]):
        known = row["found"] + row["missed"]
        if row["missed"] == 0 and known == mappings:
            clean.append(row["strategy"])
            continue
        missed = _number(row["missed"]) if row["missed"] else "none"
        rest = f"; of {_number(mappings - known)} more it is not known" if known < mappings else ""
        first = facts.firsts.get(row["strategy"])
        why = f"; first cause: {first.words}" if row["missed"] and first is not None else ""
        verb = "misses" if row["strategy"] == facts.capture["native_strategy"] else "would miss"
        sentences.append(f"{row['strategy']} {verb} {missed} of {_number(known)} mappings{rest}{why}.")
    if answered and not mappings:
        sentences.append("No walk finds a mapping, under any strategy.")
    elif len(clean) == len(asked) > 1:
        sentences.append(f"No strategy would miss any of {_number(mappings)} mappings.")
    elif clean:
        is_whole = facts.counted["missed_known"] == _walks(facts)
        of_known = "" if is_whole else f" of {_number(mappings)} mappings"
        sentences.append(f"{_and(clean)} would miss none{of_known}.")
    unknown = [row["strategy"] for row in asked if row["missed"] is None or row["found"] is None]
    if unknown:
        sentences.append(f"What {_and(unknown)} would miss is not known.")
    return sentences


def _cost(facts: Facts, asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """The longest loops, strategies that agree together; else the longest walk."""
    longest: dict[str, list[str]] = {}
    for row in asked:
        value, least, most = (row.get(f"iterations_max{end}") for end in ("", "_least", "_most"))
        if value is not None:
            longest.setdefault(_number(value), []).append(row["strategy"])
        elif least is not None:
            to = f"{_number(least)} or more" if most is None else f"{_number(least)} to {_number(most)}"
            longest.setdefault(to, []).append(row["strategy"])
    said = [f"{_and(names)} {most}" for most, names in longest.items()]
    if said:
        return [f"Most iterations in one inner loop: {'; '.join(said)}."]
    took = [row["time_ms_max"] for row in facts.rows if row["strategy"] == OBSERVED and row["time_ms_max"]]
    return [f"The longest walk took {took[0]:,.3f} ms; iterations are not known."] if took else []


def _uncertain(facts: Facts) -> list[str]:
    """How many walks lost events make uncertain, and how."""
    if not facts.uncertain:
        return []
    walks = max((row["walks"] or 0 for row in facts.rows), default=0)
    total = sum(facts.uncertain.values())
    how = "; ".join(f"{_number(count)} {UNCERTAIN[name]}" for name, count in facts.uncertain.items())
    return [f"Lost events make {_number(total)} of {_number(walks)} walks uncertain: {how}."]


def _bounds(facts: Facts) -> list[str]:
    """How many walks have bounds in place of counts."""
    exact, bounds, unknown = (facts.counted[name] for name in ("counted", "bounded", "unknown"))
    if not bounds:
        return []
    nothing = f", nothing of {_number(unknown)}" if unknown else ""
    return [
        f"Of {_number(_walks(facts))} walks, counts are known of {_number(exact)}, bounds of "
        f"{_number(bounds)}{nothing}; what would be missed, of {_number(facts.counted['missed_known'])}."
    ]


def _walks(facts: Facts) -> int:
    return sum(facts.counted[name] for name in ("counted", "bounded", "unknown"))


def evidence(facts: Facts) -> list[tuple[str, str]]:
    """The evidence words that the rows carry, strongest first, each with its meaning."""
    used = {row["evidence"] for row in facts.rows}
    return [(word, meaning) for word, meaning in EVIDENCE.items() if word in used]


def short_provenance(facts: Facts) -> list[tuple[str, str]]:
    """Where the numbers come from, in four lines: label and value."""
    capture = facts.capture
    lost = capture["events_lost"]
    duration = facts.duration_ns
    cpus = f"{capture['cpus']} cpu{'s' if capture['cpus'] != 1 else ''}"
    machine = f"{capture['kernel_release'] or 'not known'} {capture['arch'] or ''}".rstrip()
    kernel = [
        machine,
        cpus,
        *([f"runs {capture['native_strategy']}"] if capture["native_strategy"] else []),
        *([capture["hostname"]] if capture["hostname"] else []),
    ]
    events = [
        f"{_number(capture['events'])}" + ("" if duration is None else f" in {duration / 1e9:.3f} s"),
        "lost: unknown" if lost is None else f"{_number(lost)} lost",
        *(["file truncated"] if capture["truncated"] else []),
        f"clock {capture['clock'] or 'not known'}",
        f"replay {capture['replay_version']}",
    ]
    return [
        ("capture", f"{capture['path']}, {capture['format']}, {_number(capture['size_bytes'])} bytes"),
        ("sha256", capture["sha256"]),
        ("kernel", ", ".join(kernel)),
        ("events", ", ".join(events)),
    ]


def counts(facts: Facts) -> str:
    """How many walks and loops the report is about."""
    walks = max((row["walks"] or 0 for row in facts.rows), default=0)
    loops = max((row["loops"] or 0 for row in facts.rows), default=0)
    many = ["" if number == 1 else "s" for number in (walks, loops)]
    return f"{_number(walks)} walk{many[0]}, {_number(loops)} inner loop{many[1]}"


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
    return [
        ("capture", f"{capture['path']} ({capture['format']}, {_number(capture['size_bytes'])} bytes)"),
        ("sha256", capture["sha256"]),
        ("kernel", ", ".join(kernel)),
        ("events", ", ".join(events)),
        ("clock", capture["clock"] or "not known"),
        ("walks", f"{counts(facts)} of rmap_walk_ksm()"),
        ("replay", capture["replay_version"]),
    ]


def worst_walks(facts: Facts) -> tuple[str, list[str]]:
    """A heading and one line for each of the worst walks."""
    lines = []
    first, native = facts.capture["first_ts_ns"], facts.ran
    ran = facts.worst.by_time or facts.worst.strategy in (OBSERVED, native)
    under = "" if ran else f" under {native}" if native else " in the kernel"
    for row in facts.worst.rows:
        parts = [f"walk {row['walk_id']}"]
        if first is not None:
            parts[0] += f" at {(row['ts_ns'] - first) / 1e9:.3f} s"
        if row["pid"] is not None:
            parts.append(f"pid {row['pid']}" + (f" {row['comm']}" if row["comm"] else ""))
        if row["caller"] is not None:
            parts.append(row["caller"])
        if (total := bounded(row, "iterations_total")) is not None:
            loops = "" if row["loops"] is None else f" in {_number(row['loops'])} loops"
            parts.append(f"{_number(total) if isinstance(total, int) else total} iterations{loops}")
        if row["observed_ns"] is not None:
            parts.append(f"took {row['observed_ns'] / 1e6:.3f} ms{under}")
        if row["uncertain"] is not None:
            parts.append(f"uncertain ({row['uncertain']})")
        lines.append(", ".join(parts))
    how = "longest time" if facts.worst.by_time else f"most iterations, row {facts.worst.strategy}"
    return f"Worst walks ({how}):", lines


def measures(facts: Facts) -> list[str]:
    """What the columns of the strategy table mean."""
    sentences = [
        "Nr_iteration_total to Skip_mm_mismatch: maxima, each over all inner loops; Time_ms: longest walk.",
        "found, missed: mappings, summed over the walks. -: not known.",
    ]
    if facts.counted["bounded"]:
        sentences.append("a..b: at least and at most; inner loops that may not have been run are among them.")
    timed = {row["strategy"] for row in facts.rows if row["time_ms_max"] is not None}
    if OBSERVED in timed:
        sentences.append("Time_ms of row observed is measured.")
    if timed - {OBSERVED}:
        sentences.append(time_words.interval(facts.fits))
    return sentences


def bounded(row: Mapping[str, Any], column: str) -> Any:
    """A value of a row, or as text what is known of it: ``least..most`` or ``least+``; None: nothing."""
    value, least, most = (row.get(name) for name in (column, f"{column}_least", f"{column}_most"))
    if value is not None or least is None:
        return value
    return f"{least}+" if most is None else f"{least}..{most}"


def cell(value: float | str | None) -> str:
    """One cell of a table: ``-`` for null, milliseconds with three decimals, counts as they are."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _number(value: int) -> str:
    return f"{value:,}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
