"""The tables of the documents: strategies, quantiles, causes, the worst walks, waits, quality, provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.facts.all import COLUMNS, Facts, ranges
from reports.facts.quantiles import QUANTILES
from reports.facts.vm_flags import flag_names
from reports.grid import Grid, grid
from reports.words import nodes as node_words
from reports.words import other_kernel as other_kernel_words
from reports.words.sentences import bounded, provenance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.quantiles import Distribution
    from reports.facts.splits import Splits
    from reports.facts.waits import Waits

MAX_MISSES: Final = 20
AFTER: Final = "Times: seconds after the first event of the capture."


def strategies(facts: Facts) -> Grid:
    """The strategy table, all columns."""
    keys = [column for column, _ in COLUMNS]
    rows = [
        [
            row["strategy"],
            *(bounded(row, key) for key in keys),
            row["evidence"],
            bounded(row, "iterations_total"),
        ]
        for row in facts.rows
    ]
    kinds = {"missed": "bad"}
    names = ",".join(f"{name}={key}:{kinds.get(name, 'n')}" for key, name in COLUMNS)
    return grid("strategies", f"strategy,{names},evidence,iterations in all=iterations_total:n", rows)


def quantiles(name: str, found: Mapping[str, Distribution], facts: Facts, of: str, kind: str) -> Grid:
    """How a number is distributed, a row a strategy.

    Args:
        name: Key of the grid.
        found: The distributions.
        facts: For the order of the strategies.
        of: What has the number: ``loops`` or ``walks``.
        kind: How the numbers read: ``n`` or ``ms``.
    """
    shares = ",".join(f"{each}={each.replace(' %', '_percent')}:{kind}" for each, _ in QUANTILES)
    rows = [
        [each, found[each].count, found[each].bins[0].least, *found[each].quantiles, found[each].most]
        for each in facts.strategies
        if each in found
    ]
    unit = "In ms. " if kind == "ms" else ""
    caption = (
        f"{unit}Of {of} whose value is known: the value at or below which half, 90 % and 99 % of them lie."
    )
    return grid(name, f"strategy,{of}:n,least:{kind},{shares},most:{kind}", rows, caption)


def nodes(facts: Facts) -> list[Grid]:
    """Walks over every node that were asked for: a table a moment."""
    names = ",".join(f"{name}={key}:{'bad' if name == 'missed' else 'n'}" for key, name in node_words.COLUMNS)
    return [
        grid(
            f"nodes_{moment}",
            f"strategy,{names}",
            [[row["strategy"], *(row[key] for key, _ in node_words.COLUMNS)] for row in rows],
            sentence,
        )
        for moment, sentence, rows in node_words.moments(facts.nodes)
    ]


def other_kernel(facts: Facts) -> Grid:
    """Each count as it is here, and as it would be by the rules of another kernel."""
    rules = facts.other[0]["kernel_rules"]
    here = {row["strategy"]: row for row in facts.rows}
    rows = [
        [
            row["strategy"],
            *(
                bounded(each, key)
                for key, _ in other_kernel_words.COLUMNS
                for each in (here.get(row["strategy"], {}), row)
            ),
        ]
        for row in facts.other
    ]
    heads = (f"{name}=here_{key}:n,by {rules}={key}:n" for key, name in other_kernel_words.COLUMNS)
    caption = other_kernel_words.verdict(facts.other)
    return grid("other_kernel", f"strategy,{','.join(heads)}", rows, caption)


def causes(facts: Facts) -> Grid:
    """Missed mappings by strategy and cause."""
    rows = [[miss.strategy, miss.cause, miss.did or None, miss.mappings] for miss in facts.misses]
    caption = (
        "Summed over all walks. Since: the event since which the mapping's VMA is passed by; -: not known."
    )
    return grid("causes", "strategy,since=cause,kind:wide,mappings missed=mappings:n", rows, caption)


def missed(miss: pa.Table, facts: Facts) -> Grid:
    """The first missed mappings, in the order of the table."""
    rows = [
        [
            row["strategy"],
            row["walk_id"],
            row["address"],
            f"{row['vm_start']:#x}-{row['vm_end']:#x}",
            row["first_pgoff"],
            row["page_pgoff"],
            row["mapped_by"],
            _call(row),
            facts.after(row["cause_ts_ns"]),
            row["cause_pid"],
            row["cause_comm"],
        ]
        for row in miss.slice(0, MAX_MISSES).to_pylist()
    ]
    caption = f"{len(rows)} of {len(miss):,} rows of tables/miss.parquet. {AFTER}"
    columns = (
        "strategy,walk=walk_id,address:x,VMA (end exclusive)=vma,looked up from=first_pgoff:x,"
        "page was at=page_pgoff:x,mapped=mapped_by,since=cause:wide,at s=cause_at_ns:s,by pid=cause_pid,"
        "comm=cause_comm"
    )
    return grid("missed_mappings", columns, rows, caption, "The first missed mappings")


def _call(row: Mapping[str, Any]) -> str | None:
    """The event with its arguments, as in a manual page."""
    if row["cause_event"] is None or row["cause_arguments"] is None:
        return str(row["cause_event"]) if row["cause_event"] else None
    return f"{row['cause_event']}({row['cause_arguments']})"


def longest_walks(facts: Facts) -> Grid:
    """The walks with most iterations: as the kernel counted, else under its own strategy, else the first.

    Where no iterations are known, the walks that took longest.
    """
    rows = [
        [
            row["walk_id"],
            facts.after(row["ts_ns"]),
            row["cpu"],
            row["pid"],
            row["comm"],
            row["caller"],
            row["loops"],
            bounded(row, "iterations_total"),
            bounded(row, "iterations_max"),
            row["observed_ns"],
            *([row["uncertain"]] if facts.uncertain else []),
        ]
        for row in facts.worst.rows
    ]
    most = "the longest time" if facts.worst.by_time else f"most iterations in row {facts.worst.strategy}"
    caption = (
        f"The {len(rows)} walks with {most}. {AFTER} "
        "Took: from entry to return in the capture, the probes' own cost included."
    )
    columns = (
        "walk=walk_id,at s=at_ns:s,cpu,pid,comm:wide,caller,loops:n,iterations=iterations_total:n,"
        "most in a loop=iterations_max:n,took ms=observed_ns:ms"
    )
    if facts.uncertain:
        columns += ",uncertain"
        caption += " Uncertain: how lost events may have changed it (`replay schema walk`)."
    return grid("worst_walks", columns, rows, caption)


def waiters(waits: Waits) -> Grid:
    """Who waited for the locks, most time lost first."""
    rows = [
        [
            row["comm"],
            row["doing"],
            "change the trees" if row["is_write"] else "walk a tree",
            row["tasks"],
            row["waits"],
            row["lost_ns"],
            row["longest_ns"],
            row["behind_ns"],
        ]
        for row in waits.groups
    ]
    columns = (
        "task=comm:wide,waits in=doing,to=purpose,tasks:n,waits:n,lost ms=lost_ns:ms,"
        "longest ms=longest_ns:ms,while a walk ran ms=behind_ns:ms"
    )
    return grid("waiters", columns, rows, "Waits that outlast spinning (lock:contention_begin, _end).")


def blocking_walks(waits: Waits, walk: pa.Table, facts: Facts) -> Grid:
    """The walks behind which most time was lost."""
    numbers = [row["walk_id"] for row in waits.walks]
    once = pl.DataFrame(walk.select(["walk_id", "ts_ns", "comm", "caller", "observed_ns"])).unique("walk_id")
    known = {
        row["walk_id"]: row for row in once.filter(pl.col("walk_id").is_in(numbers)).iter_rows(named=True)
    }
    rows: list[Sequence[Any]] = []
    for row in waits.walks:
        own = known.get(row["walk_id"], dict.fromkeys(once.columns))
        rows.append(
            [
                row["walk_id"],
                facts.after(own["ts_ns"]),
                own["comm"],
                own["caller"],
                own["observed_ns"],
                row["waits"],
                row["tasks"],
                row["lost_ns"],
            ]
        )
    columns = (
        "walk=walk_id,at s=at_ns:s,comm:wide,caller,took ms=observed_ns:ms,waits:n,tasks:n,lost ms=lost_ns:ms"
    )
    caption = f"Each wait counts for the walk that it overlaps longest. {AFTER}"
    return grid("blocking_walks", columns, rows, caption, "The walks behind which most time was lost")


def split_sites(splits: Splits) -> Grid:
    """The call sites that made the VMAs of the largest trees."""
    stacks = any(row["stack"] for row in splits.sites)
    keys = ("sites", "calls", "vmas_to_peak", "vmas", "anon_vma", *(["stack"] if stacks else []))
    rows = [[row[key] for key in ("cause_event", "arguments", "comm", "pid", *keys)] for row in splits.sites]
    columns = (
        "call=cause,arguments:wide,task=comm:wide,pid,sites:n,calls:n,VMAs up to the peak=vmas_to_peak:n,"
        "VMAs in all=vmas:n,tree of anon_vma=anon_vma:x"
    )
    caption = "VMAs: insertions into the tree less removals. Call sites that made a hundredth of their tree."
    return grid("split_sites", f"{columns},user stack=stack:wide" if stacks else columns, rows, caption)


def refusals(splits: Splits) -> Grid:
    """Why neighbours, or merges that were tried, did not become one VMA."""
    said = {True: "refused", False: "allowed", None: None}
    rows = [
        [
            row["kind"],
            row["cause_event"],
            row["arguments"],
            row["comm"],
            row["merges"],
            row["reasons"] or None,
            flag_names(row["vm_flags"]) or None,
            said[row["by_6_12"]],
            said[row["by_7_3"]],
            row["anon_vma"],
        ]
        for row in splits.refusals
    ]
    columns = (
        "what=kind,made by=cause,arguments:wide,task=comm:wide,merges:n,why not=reasons:wide,"
        "VM flags that differ=vm_flags:wide,by 6.12=by_6_12,by 7.3=by_7_3,tree of anon_vma=anon_vma:x"
    )
    return grid("refusals", columns, rows, "", "Why VMAs did not merge")


def quality(facts: Facts) -> Grid:
    """Table ``quality``, rows that say the same together."""
    rows = [
        [
            note.severity,
            note.kind,
            note.count,
            ranges(note.cpus) or None,
            facts.after(note.start_ns),
            facts.after(note.end_ns),
            note.effect,
        ]
        for note in facts.notes
    ]
    caption = f"{AFTER} -: not known, open, or not one CPU."
    columns = "severity,kind,how many=count:n,cpu,from s=from_ns:s,to s=to_ns:s,effect:wide"
    return grid("limits", columns, rows, caption)


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
    return grid("provenance", "what,value:wide", rows)
