"""Raw events of any dialect -> the ``ev_*`` tables of ``schemas``.

What becomes what is in ``captures.roles``; this module finds the events of a capture that have a role and
brings their columns into the types of the schema. One call decodes everything in one pass over the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captures.roles import ROLES, SYSCALLS, From, Role
from schemas import TABLES
from schemas.errors import MissingEventsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from captures.eventfmt import EventFormat
    from captures.info import Capture

    Values: TypeAlias = pa.Array[Any]

COMMON: Final = ("seq", "ts_ns", "cpu", "pid")
EVENT_TABLES: Final = tuple(name for name in TABLES if name.startswith("ev_"))

# What perf probe, kprobe_events and fprobe events put around the function's name.
_DECORATION: Final = re.compile(r"^(?:[pr]_)?(?P<function>\w+?)(?:__(?:entry|exit|return))?(?:_\d+)?$")
_SYMBOL: Final = re.compile(r"^[^+\s]*")


@dataclass(frozen=True)
class Match:
    """An event of the capture that has a role.

    Attributes:
        name: ``system:name``.
        role: The role.
        sources: For each column, the raw field that it comes from.
    """

    name: str
    role: Role
    sources: dict[str, From]


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
    calls = _syscall_names(capture) if "ev_syscall" in asked else {}
    raw = capture.decode([each.name for each in matches] + list(calls))
    parts: dict[str, list[pa.Table]] = {name: [] for name in EVENT_TABLES}
    for match in _one_for_each_role(matches, raw):
        parts[match.role.table].append(_convert(capture, match, raw[match.name]))
    for name in calls:
        parts["ev_syscall"].append(_syscall(capture.formats[name], raw[name]))
    return {name: _united(name, tables) for name, tables in parts.items()}


def find_roles(capture: Capture) -> list[Match]:
    """The events of a capture that have a role, whether or not they occur.

    Raises:
        MissingEventsError: An event lacks a field that its role cannot do without, and occurs in the capture.
    """
    by_name = {name: role for role in ROLES for name in role.tracepoints}
    by_function = {(function, role.is_return): role for role in ROLES for function in role.functions}
    by_alias = {(alias, role.is_return): role for role in ROLES for alias in role.aliases}
    found = []
    for name, event in capture.formats.items():
        role = by_name.get(name)
        if role is None and b"field:unsigned long __probe_" in event.text:
            is_return = "__probe_ret_ip" in event.fields
            role = by_alias.get((event.name, is_return))
            if role is None and (decorated := _DECORATION.match(event.name)):
                role = by_function.get((decorated["function"], is_return))
        if role is not None:
            sources = _sources(capture, event, role)
            if sources is not None:
                found.append(Match(name, role, sources))
    return found


def _sources(capture: Capture, event: EventFormat, role: Role) -> dict[str, From] | None:
    """The raw field of each column, None: essential ones are missing, but the event does not occur."""
    columns = TABLES[role.table].columns[len(COMMON) :]
    wanted = (
        role.columns
        if role.columns or role.constants
        else {each.name: From((each.name,)) for each in columns}
    )
    names = {f"{name}_" if name in COMMON else name for name in event.fields}
    sources = {}
    for column, source in wanted.items():
        lower = next((name for name in source.names if name in names), None)
        upper = next((name for name in source.upper if name in names), None)
        if lower is not None and (upper is not None) == bool(source.upper):
            sources[column] = From((lower,), source.rule, () if upper is None else (upper,))
    needed = [each.name for each in columns if each.null is None and each.name not in role.constants]
    lacking = [name for name in needed if name not in sources]
    if not lacking:
        return sources
    full_name = f"{event.system}:{event.name}"
    if full_name not in capture.event_counts():
        return None
    names_of = wanted[lacking[0]].names if lacking[0] in wanted else (lacking[0],)
    raise MissingEventsError(
        f"the event {full_name} lacks the field {lacking[0]}",
        path=capture.path,
        expected=f"a field {' or '.join(names_of)}",
        found=f"fields {', '.join(event.fields)}",
        hint=f"record it again with that field; `replay schema {role.table}` lists what is needed",
    )


def _one_for_each_role(matches: list[Match], raw: dict[str, pa.Table]) -> list[Match]:
    """Where two probes are on one function, the one that occurs and tells most: both would count double."""
    best: dict[tuple[Any, ...], Match] = {}
    for match in matches:
        key = (match.role.table, tuple(match.role.constants.items()))
        rival = best.get(key)
        if rival is None or _value(match, raw) > _value(rival, raw):
            best[key] = match
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


def _syscall_names(capture: Capture) -> dict[str, EventFormat]:
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
    for number in range(6):
        if way == "enter" and number < len(arguments):
            name = f"{arguments[number]}_" if arguments[number] in COMMON else arguments[number]
            columns[f"arg{number}"] = pa.array(_integers(_flat(raw[name]), np.uint64))
        else:
            columns[f"arg{number}"] = pa.nulls(raw.num_rows, pa.uint64())
    columns["ret"] = (
        pa.array(_integers(_flat(raw["ret"]), np.int64))
        if way == "exit"
        else pa.nulls(raw.num_rows, pa.int64())
    )
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
