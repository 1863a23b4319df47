"""Raw events of any dialect -> the ``ev_*`` tables of ``schemas``.

What becomes what is in ``captures.roles``; this module finds the events of a capture that have a role and
brings their columns into the types of the schema. One call decodes everything in one pass over the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
import pyarrow as pa

from captures.columns import flags, is_valid, numbers, release_unused, reordered
from captures.decode import COMMON, column_name
from captures.matching import Match, find_roles, is_number
from captures.roles import OF_32_BITS, SYSCALLS
from schemas import TABLES
from schemas.provenance import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from captures.eventfmt import EventFormat, Field
    from captures.info import Capture
    from captures.roles import From

    Values: TypeAlias = pa.Array[Any]
    Constant: TypeAlias = pa.Scalar[Any]
    Part: TypeAlias = dict[str, Values | Constant]
    Numbers: TypeAlias = np.ndarray[Any, Any]

EVENT_TABLES: Final = tuple(name for name in TABLES if name.startswith("ev_"))

MAX_ERRNO: Final = 4095
"""Of what a system call returns, -1 to -MAX_ERRNO are errors (include/linux/err.h)."""

_OF_THREADS: Final = 0x10100
"""CLONE_VM and CLONE_THREAD (include/uapi/linux/sched.h)."""

_ULONG_MAX: Final = np.uint64((1 << 64) - 1)

_SYMBOL: Final = re.compile(r"^[^+\s]*")


def canonical_events(
    capture: Capture, names: Iterable[str] | None = None, bare: Collection[str] = ()
) -> dict[str, pa.Table]:
    """All event tables of a capture.

    Args:
        capture: The capture.
        names: Names of the ``ev_*`` tables to fill; None: all of them.
        bare: Names of those of which only the columns that every event has are asked for, the first four:
            their other columns are neither decoded nor in the result.

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
    columns = {
        each.name: {
            name
            for source in each.sources.values()
            for name in source.names + source.upper
            if each.role.table not in bare
        }
        for each in matches
    }
    raw = capture.decode([*columns, *calls], columns)
    by_table: dict[str, list[Match]] = {name: [] for name in EVENT_TABLES}
    for match in _one_for_each_role(matches, raw):
        by_table[match.role.table].append(match)
    tables = {}
    for name, of_table in by_table.items():
        # What has become part of a table is not needed any more: it is let go at once.
        parts: list[Part] = [
            {column: each[column] for column in COMMON} if name in bare else _convert(capture, match, each)
            for match in of_table
            for each in raw.pop(match.name).to_batches()
        ]
        if name == "ev_syscall":
            parts += [
                _syscall(event, each) for call, event in calls.items() for each in raw.pop(call).to_batches()
            ]
        wanted = COMMON if name in bare else tuple(TABLES[name].arrow.names)
        tables[name] = _united(name, parts, wanted)
    release_unused()
    return tables


def _one_for_each_role(matches: list[Match], raw: dict[str, pa.Table]) -> list[Match]:
    """Where two probes are on one function, the one that occurs and tells most: both would count double.

    A tracepoint comes before perf's record of the same thing.
    """
    best: dict[tuple[Any, ...], Match] = {}
    for match in matches:
        rival = best.get(match.key)
        if rival is None or _value(match, raw) > _value(rival, raw):
            best[match.key] = match
    return list(best.values())


def _value(match: Match, raw: dict[str, pa.Table]) -> tuple[bool, bool, int, int]:
    rows = raw[match.name].num_rows
    return rows > 0, not match.name.startswith("perf:"), len(match.sources), rows


def _convert(capture: Capture, match: Match, raw: pa.RecordBatch) -> Part:
    """Rows of one raw event as rows of its table; a scalar is what all of them have."""
    table = TABLES[match.role.table]
    columns: Part = {}
    for column in table.columns:
        if column.name in COMMON:
            columns[column.name] = raw[column.name]
        elif column.name in match.role.constants:
            columns[column.name] = pa.scalar(match.role.constants[column.name], column.type)
        elif column.name in match.sources:
            columns[column.name] = _value_of(capture, raw, match.sources[column.name], column.type)
        else:
            columns[column.name] = pa.scalar(None, column.type)
    return columns


def _value_of(capture: Capture, raw: pa.RecordBatch, source: From, type_: pa.DataType) -> Values:
    """The values of one column."""
    values = raw[source.names[0]]
    if source.rule == "pair":
        lower = _integers(values, np.uint64) & np.uint64(0xFFFFFFFF)
        upper = _integers(raw[source.upper[0]], np.uint64) << np.uint64(32)
        return numbers(upper | lower)
    if source.rule == "thread":
        same = _integers(values, np.uint32) == _integers(raw[source.upper[0]], np.uint32)
        return pa.array(np.full(len(same), _OF_THREADS, np.uint64), mask=~same)
    if source.rule == "node":
        return numbers(_integers(values, np.uint64) & np.uint64(~3 & (1 << 64) - 1))
    if source.rule == "ulong_max" and values.type.bit_width == 32:
        narrow = _integers(values, np.uint32)
        return numbers(np.where(narrow == np.uint32(0xFFFFFFFF), _ULONG_MAX, narrow.astype(np.uint64)))
    if source.rule == "plus_one":
        return numbers((_integers(values, np.int64) + 1).astype(np.int32))
    if source.rule == "line":
        return pa.array([text and text.rstrip("\n") for text in values.to_pylist()], pa.string())
    if source.rule == "symbol":
        return _symbols(capture, values)
    if source.rule == "frames":
        return _frames(values)
    if pa.types.is_string(type_):
        return values
    if pa.types.is_boolean(type_):
        return values if pa.types.is_boolean(values.type) else numbers(_integers(values, np.int64) != 0)
    return numbers(_integers(values, type_.to_pandas_dtype()))


def _integers(values: Values, dtype: Any) -> Numbers:
    """Integers in another type; the bits of a register stay what they are."""
    return cast("Numbers", values.to_numpy(zero_copy_only=False).astype(dtype, copy=False))


def _symbols(capture: Capture, values: Values) -> Values:
    """Names of functions: from text ``name+0x0/0xe40``, or from addresses by the capture's kallsyms."""
    raw = values.to_pylist()
    names: dict[int | str | None, str | None] = {}
    for value in set(raw):
        if isinstance(value, int):
            names[value] = capture.symbol(value)
        elif value is not None:
            found = _SYMBOL.match(value)
            names[value] = (found[0] if found else "") or None
    return pa.array(map(names.get, raw), pa.string())


def _frames(values: Values) -> Values:
    """Stacks as text; there are far fewer different ones than stacks."""
    lists = cast("pa.ListArray[Any]", values)
    frames = lists.flatten().to_numpy().astype("<u8")
    ends = lists.offsets.to_numpy()
    ends = ((ends - ends[0]) * frames.itemsize).astype(np.int32)
    memory: list[pa.Buffer | None] = [None, pa.py_buffer(ends), pa.py_buffer(frames)]
    coded = pa.Array.from_buffers(pa.binary(), len(values), memory).dictionary_encode()
    texts = [_frames_text(np.frombuffer(each, "<u8").tolist()) for each in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def _frames_text(frames: list[int]) -> str | None:
    """The frames up to the first 0, with which the kernel and broken chains fill up; None: there is none."""
    used = frames[: frames.index(0)] if 0 in frames else frames
    return " < ".join(map(hex, used)) or None


def syscall_names(capture: Capture) -> dict[str, EventFormat]:
    """Formats of the events of system calls in ``roles.SYSCALLS`` that the capture knows, by name."""
    wanted = [f"syscalls:sys_{way}_{call}" for call in (*SYSCALLS, *OF_32_BITS) for way in ("enter", "exit")]
    return {name: capture.formats[name] for name in wanted if name in capture.formats}


def _syscall(event: EventFormat, raw: pa.RecordBatch) -> Part:
    """Rows of one sys_enter_* or sys_exit_* event; arguments by their place, as their names differ."""
    _, way, name = event.name.split("_", 2)
    call = OF_32_BITS.get(name, name)
    table = TABLES["ev_syscall"]
    columns: Part = {name: raw[name] for name in COMMON}
    columns["is_exit"] = pa.scalar(way == "exit")
    columns["name"] = pa.scalar(call)
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
            columns[column.name] = pa.scalar(None, column.type)
        else:
            values = _integers(raw[column_name(field)], column.type.to_pandas_dtype())
            if column.name == "ret":
                values = _returned(event.fields[field], values)
            if name == "mmap_pgoff" and column.name == "arg5":
                values = values * np.uint64(PAGE_BYTES)
            columns[column.name] = numbers(values)
    return columns


def _returned(field: Field, values: Numbers) -> Numbers:
    """What a system call returned: an error if IS_ERR_VALUE() takes it for one.

    Where a long has 4 bytes, half of the addresses look negative, and text prints errors as 0xffffffea.
    """
    if field.size == 4:
        return np.where(values < -MAX_ERRNO, values + (1 << 32), values)
    is_error = (values >= (1 << 32) - MAX_ERRNO) & (values < 1 << 32)
    return values if field.signed else np.where(is_error, values - (1 << 32), values)


def _united(name: str, parts: list[Part], wanted: tuple[str, ...]) -> pa.Table:
    """One table in order of ``seq``; the columns of ``parts`` are let go one by one."""
    if not parts:
        return TABLES[name].empty().select(list(wanted))
    lengths = [len(part["seq"]) for part in parts]
    seq = np.concatenate([_bits(part["seq"]) for part in parts])
    # The parts of one event are in order, and one behind the other: a stable sort merges the events.
    order = None if bool((seq[1:] > seq[:-1]).all()) else np.argsort(seq, kind="stable")
    scratch = np.empty(0 if order is None else len(order), dtype=np.uint64)
    columns = [_merged([part.pop(each) for part in parts], lengths, order, scratch) for each in wanted]
    schema = TABLES[name].arrow
    if len(wanted) < len(schema):
        return pa.table(columns, schema=pa.schema([schema.field(each) for each in wanted]))
    return TABLES[name].check(pa.table(columns, schema=schema))


def _merged(
    parts: list[Values | Constant], lengths: list[int], order: Numbers | None, scratch: Numbers
) -> Values | pa.ChunkedArray[Any]:
    """The values of one column of several parts, one part after the other, then in another order.

    What Arrow's own functions would do, with numpy: in a third of the time, and without their import.
    ``scratch``: memory for numbers in the order of the parts.
    """
    constants = list(dict.fromkeys(each for each in parts if isinstance(each, pa.Scalar)))
    if len(constants) == 1 and all(isinstance(each, pa.Scalar) for each in parts):
        return pa.repeat(constants[0], sum(lengths))
    arrays = [
        pa.repeat(each, length) if isinstance(each, pa.Scalar) else each
        for each, length in zip(parts, lengths, strict=True)
    ]
    if order is None:
        return pa.chunked_array(arrays)
    if pa.types.is_string(arrays[0].type):
        return reordered(pa.concat_arrays(arrays), order)
    has_null = any(each.null_count for each in arrays)
    valid = np.concatenate([is_valid(each) for each in arrays]).take(order) if has_null else None
    bits = [_bits(each) for each in arrays]
    values = np.concatenate(bits, out=scratch.view(bits[0].dtype)[: len(order)]).take(order)
    return numbers(values, valid)


def _bits(values: Values) -> Numbers:
    """The memory of an array of integers or flags; where it is null, there is any value."""
    memory = values.buffers()[1]
    if pa.types.is_boolean(values.type):
        return flags(memory, values)
    numbers = np.frombuffer(memory, dtype=values.type.to_pandas_dtype())
    return numbers[values.offset : values.offset + len(values)]
