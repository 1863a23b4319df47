"""Raw events of any dialect -> the ``ev_*`` tables of ``schemas``.

What becomes what is in ``captures.roles``; this module finds the events of a capture that have a role and
brings their columns into the types of the schema. One call decodes everything in one pass over the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captures.matching import COMMON, Match, column_name, find_roles, is_number
from captures.roles import SYSCALLS
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from captures.eventfmt import EventFormat
    from captures.info import Capture
    from captures.roles import From

    Values: TypeAlias = pa.Array[Any]

EVENT_TABLES: Final = tuple(name for name in TABLES if name.startswith("ev_"))

_SYMBOL: Final = re.compile(r"^[^+\s]*")


def canonical_events(capture: Capture, names: Iterable[str] | None = None) -> dict[str, pa.Table]:
    """All event tables of a capture.

    Args:
        capture: The capture.
        names: Names of the ``ev_*`` tables to fill; None: all of them.

    Returns:
        Every ``ev_*`` table by name, in order of ``seq``; empty where the capture has no such event, or where
        the table was not asked for.

    Raises:
        MissingEventsError: An event has a role but lacks a field that the role cannot do without.
    """
    asked = set(EVENT_TABLES if names is None else names)
    if unknown := asked - set(EVENT_TABLES):
        raise ValueError(f"not an event table: {', '.join(sorted(unknown))}")
    matches = [each for each in find_roles(capture) if each.role.table in asked]
    calls = syscall_names(capture) if "ev_syscall" in asked else {}
    raw = capture.decode([each.name for each in matches] + list(calls))
    parts: dict[str, list[pa.Table]] = {name: [] for name in EVENT_TABLES}
    for match in _one_for_each_role(matches, raw):
        parts[match.role.table].append(_convert(capture, match, raw[match.name]))
    for name in calls:
        parts["ev_syscall"].append(_syscall(capture.formats[name], raw[name]))
    return {name: _united(name, tables) for name, tables in parts.items()}


def _one_for_each_role(matches: list[Match], raw: dict[str, pa.Table]) -> list[Match]:
    """Where two probes are on one function, the one that occurs and tells most: both would count double."""
    best: dict[tuple[Any, ...], Match] = {}
    for match in matches:
        rival = best.get(match.key)
        if rival is None or _value(match, raw) > _value(rival, raw):
            best[match.key] = match
    return list(best.values())


def _value(match: Match, raw: dict[str, pa.Table]) -> tuple[bool, int, int]:
    rows = raw[match.name].num_rows
    return rows > 0, len(match.sources), rows


def _convert(capture: Capture, match: Match, raw: pa.Table) -> pa.Table:
    """Rows of one raw event as rows of its table."""
    table = TABLES[match.role.table]
    columns: dict[str, Values] = {}
    for column in table.columns:
        if column.name in COMMON:
            columns[column.name] = _flat(raw[column.name])
        elif column.name in match.role.constants:
            columns[column.name] = pa.repeat(
                pa.scalar(match.role.constants[column.name], column.type), raw.num_rows
            )
        elif column.name in match.sources:
            columns[column.name] = _value_of(capture, raw, match.sources[column.name], column.type)
        elif match.role.table == "ev_walk" and column.name == "comm":
            columns["comm"] = _looked_up(raw["pid"], capture.comms())
        else:
            columns[column.name] = pa.nulls(raw.num_rows, column.type)
    return pa.table(columns, schema=table.arrow)


def _value_of(capture: Capture, raw: pa.Table, source: From, type_: pa.DataType) -> Values:
    """The values of one column."""
    values = _flat(raw[source.names[0]])
    if source.rule == "pair":
        lower = _integers(values, np.uint64) & np.uint64(0xFFFFFFFF)
        upper = _integers(_flat(raw[source.upper[0]]), np.uint64) << np.uint64(32)
        return pa.array(upper | lower)
    if source.rule == "node":
        return pa.array(_integers(values, np.uint64) & np.uint64(~3 & (1 << 64) - 1))
    if source.rule == "plus_one":
        return pa.array((_integers(values, np.int64) + 1).astype(np.int32))
    if source.rule == "line":
        return pc.utf8_rtrim(values, "\n")
    if source.rule == "symbol":
        return _symbols(capture, values)
    if pa.types.is_string(type_):
        return values
    if pa.types.is_boolean(type_):
        return values if pa.types.is_boolean(values.type) else pa.array(_integers(values, np.int64) != 0)
    return pa.array(_integers(values, type_.to_pandas_dtype()))


def _integers(values: Values, dtype: Any) -> np.ndarray[Any, Any]:
    """Integers in another type; the bits of a register stay what they are."""
    return cast("np.ndarray[Any, Any]", values.to_numpy(zero_copy_only=False).astype(dtype))


def _symbols(capture: Capture, values: Values) -> Values:
    """Names of functions: from text ``name+0x0/0xe40``, or from addresses by the capture's kallsyms."""
    coded = values.dictionary_encode()
    names: list[str | None] = []
    for value in coded.dictionary.to_pylist():
        if isinstance(value, int):
            names.append(capture.symbol(value))
        else:
            found = _SYMBOL.match(value)
            names.append((found[0] if found else "") or None)
    return pa.array(names, pa.string()).take(coded.indices)


def _looked_up(pids: pa.ChunkedArray[Any], comms: dict[int, str]) -> Values:
    coded = _flat(pids).dictionary_encode()
    return pa.array([comms.get(pid) for pid in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def syscall_names(capture: Capture) -> dict[str, EventFormat]:
    """Formats of the events of system calls in ``roles.SYSCALLS`` that the capture knows, by name."""
    wanted = [f"syscalls:sys_{way}_{call}" for call in SYSCALLS for way in ("enter", "exit")]
    return {name: capture.formats[name] for name in wanted if name in capture.formats}


def _syscall(event: EventFormat, raw: pa.Table) -> pa.Table:
    """Rows of one sys_enter_* or sys_exit_* event; arguments by their place, as their names differ."""
    _, way, call = event.name.split("_", 2)
    table = TABLES["ev_syscall"]
    columns: dict[str, Values] = {name: _flat(raw[name]) for name in COMMON}
    columns["is_exit"] = pa.repeat(pa.scalar(way == "exit"), raw.num_rows)
    columns["name"] = pa.repeat(pa.scalar(call), raw.num_rows)
    by_place = sorted(event.fields.values(), key=lambda each: each.offset)
    arguments = [each.name for each in by_place if not each.is_dynamic and each.name != "__syscall_nr"]
    sources = dict(
        zip((f"arg{number}" for number in range(6)), arguments if way == "enter" else [], strict=False)
    )
    if way == "exit":
        sources["ret"] = "ret"
    for column in table.columns[len(columns) :]:
        field = sources.get(column.name)
        if field is None or field not in event.fields or not is_number(event, field):
            columns[column.name] = pa.nulls(raw.num_rows, column.type)
        else:
            values = _flat(raw[column_name(field)])
            columns[column.name] = pa.array(_integers(values, column.type.to_pandas_dtype()))
    return pa.table(columns, schema=table.arrow)


def _united(name: str, tables: list[pa.Table]) -> pa.Table:
    """One table in order of ``seq``."""
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return TABLES[name].empty()
    whole = pa.concat_tables(filled).combine_chunks()
    if len(filled) > 1:
        whole = whole.take(pa.array(np.argsort(whole["seq"].to_numpy(), kind="stable")))
    return TABLES[name].check(whole)


def _flat(values: pa.ChunkedArray[Any]) -> Values:
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
