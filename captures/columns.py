r"""Field values -> Arrow arrays: numbers, fixed arrays, and strings wherever they lie.

Strings end at their first NUL; bytes behind it are stale. What is not UTF-8 comes as ``\xNN``.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from captures.eventfmt import Field
    from captures.ringbuf import Bytes, Flags, Longs, Rows

_INTEGER_BYTES: Final = (1, 2, 4, 8)
_SHORT_BYTES: Final = 64


def release_unused() -> None:
    """Give memory that numpy has freed back to the system, where the C library can do that (glibc).

    Columns that came in parts leave holes in it, together as large as the columns; polars and Arrow, which
    have allocators of their own, could not use them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def arrow_type(field: Field) -> pa.DataType:
    """Arrow type of the values of a field.

    Text is string; ``bool`` is bool; a number of 1, 2, 4 or 8 bytes is that integer; an array of numbers is
    a list, of fixed size but at the end of a record; everything else is binary.
    """
    if field.is_string:
        return pa.string()
    if field.is_tail and field.element_bytes > 1:
        return pa.list_(_integer(field.element_bytes, field.signed))
    if field.is_dynamic or field.is_tail:
        return pa.binary()
    if field.length is not None:
        count = int(field.length) if field.length.isdecimal() and len(field.length) < 6 else 0
        if count and field.size % count == 0 and field.size // count in _INTEGER_BYTES:
            return pa.list_(_integer(field.size // count, field.signed), count)
        return pa.binary(field.size)
    if field.element in ("bool", "_Bool") and field.size == 1:
        return pa.bool_()
    if field.size in _INTEGER_BYTES:
        return _integer(field.size, field.signed)
    return pa.binary(field.size)


def fixed_column(raw: Rows, field: Field, order: str) -> pa.Array[Any]:
    """Values of a field that lies in the fixed part of the record.

    Args:
        raw: The bytes of the field, one row a record. Shape (records, field.size), C order.
        field: The field.
        order: ``<`` or ``>``.
    """
    type_ = arrow_type(field)
    if field.is_string:
        return _short_strings(raw, np.full(len(raw), field.size), None)
    if isinstance(type_, pa.FixedSizeListType):
        values = _native(raw, type_.value_type, order)
        return pa.FixedSizeListArray.from_arrays(numbers(values), type_.list_size)
    if pa.types.is_fixed_size_binary(type_):
        return pa.Array.from_buffers(type_, len(raw), [None, pa.py_buffer(np.ascontiguousarray(raw))])
    if pa.types.is_boolean(type_):
        return numbers(raw[:, 0] != 0)
    return numbers(_native(raw, type_, order))


def numbers(values: np.ndarray[Any, Any], valid: Flags | None = None) -> pa.Array[Any]:
    """An Arrow array of integers or flags, in the same memory if that is without gaps.

    What pyarrow.array does, but that looks for masks, and imports numpy.ma for it: as long as the decoding of
    100,000 events.

    Args:
        values: The values.
        valid: False: null; None: none is.
    """
    memory = _packed(values) if values.dtype == np.bool_ else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [_mask(valid), memory])


def list_column(values: pa.Array[Any], field: Field, order: str) -> pa.Array[Any]:
    """Arrays of numbers from their bytes.

    Args:
        values: The bytes of each, a whole number of elements; none is null.
        field: The field, an array at the end of the record.
        order: ``<`` or ``>``.
    """
    type_ = arrow_type(field)
    _, ends, raw = values.buffers()
    ends = np.frombuffer(ends, np.int32)[values.offset : values.offset + len(values) + 1]
    size = field.element_bytes
    rows = np.frombuffer(raw or b"", np.uint8)[int(ends[0]) : int(ends[-1])].reshape(-1, size)
    items = numbers(_native(rows, type_.value_type, order))
    return pa.ListArray.from_arrays(numbers((ends - ends[0]) // size), items, type=type_)


def variable_column(
    block: Bytes, start: Longs, size: Longs, valid: Flags, *, is_string: bool
) -> pa.Array[Any]:
    """Values that lie anywhere in a block.

    Args:
        block: The block.
        start: First byte of each value in the block.
        size: Bytes of each value; a string ends earlier at its NUL.
        valid: False: null (its start and size count for nothing).
        is_string: Text or binary.
    """
    size = np.where(valid, size, 0)
    if not is_string:
        return _binary(block[_ranges(start, size)], size, valid, pa.binary())
    width = int(size.max(initial=0))
    if 0 < width <= _SHORT_BYTES and int(np.where(valid, start, 0).max()) + width <= len(block):
        start = np.where(valid, start, 0)
        rows = np.ndarray((len(block) - width + 1,), f"V{width}", buffer=block.data, strides=(1,))[start]
        return _short_strings(rows.view(np.uint8).reshape(-1, width), size, valid)
    data = block[_ranges(start, size)]
    ends = np.cumsum(size)
    nul = np.append(np.flatnonzero(data == 0), len(data))
    text_end = np.minimum(nul[np.searchsorted(nul, ends - size)], ends)
    length = text_end - (ends - size)
    return string_array(data[_ranges(ends - size, length)], length, valid)


def reordered(values: pa.Array[Any], order: Longs) -> pa.Array[Any]:
    """Text, bytes or lists in another order.

    Arrow's own function takes longer to import than text to be put in order here.
    """
    if pa.types.is_list(values.type):
        return values.take(numbers(order))
    _, offsets, data = values.buffers()
    here = slice(values.offset, values.offset + len(values) + 1)
    ends = np.frombuffer(offsets or bytes(4), dtype=np.int32)[here].astype(np.int64)
    start = ends[:-1].take(order)
    block: Bytes = np.frombuffer(data or b"", dtype=np.uint8)
    is_string = pa.types.is_string(values.type)
    valid = is_valid(values).take(order)
    return variable_column(block, start, ends[1:].take(order) - start, valid, is_string=is_string)


def is_valid(values: pa.Array[Any]) -> Flags:
    """Where an array is not null."""
    memory = values.buffers()[0]
    return np.ones(len(values), dtype=np.bool_) if memory is None else flags(memory, values)


def _mask(valid: Flags | None) -> pa.Buffer | None:
    """The buffer that tells what is not null; None: nothing is."""
    return None if valid is None or valid.all() else _packed(valid)


def _packed(values: Flags) -> pa.Buffer:
    """Flags as single bits."""
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def flags(memory: pa.Buffer, values: pa.Array[Any]) -> Flags:
    """The flags of an array from a buffer of single bits."""
    bits = np.unpackbits(np.frombuffer(memory, dtype=np.uint8), bitorder="little")
    return bits[values.offset : values.offset + len(values)].view(np.bool_)


def _short_strings(raw: Rows, size: Longs, valid: Flags | None) -> pa.Array[Any]:
    """Text that ends at its first NUL, or after ``size`` bytes.

    Args:
        raw: The bytes of each value, and whatever is behind it. Shape (values, longest).
        size: Bytes of each.
        valid: As for ``string_array``.
    """
    width = raw.shape[1]
    is_nul = raw == 0
    length = is_nul.argmax(axis=1)
    # Where there is no NUL at all, argmax is 0, too.
    length[~is_nul[np.arange(len(raw)), length]] = width
    np.minimum(length, size, out=length)
    # Numbers as small as they can be: this comparison is over all bytes.
    small = np.uint8 if width < 256 else np.int64
    inside = np.arange(width, dtype=small) < length.astype(small)[:, None]
    return string_array(raw[inside], length, valid)


def string_array(data: Bytes, length: Longs, valid: Flags | None) -> pa.Array[Any]:
    """Text from the bytes of all values, one after the other, and the length of each."""
    if not len(data) or int(data.max()) < 128:
        return _binary(data, length, valid, pa.string())
    coded = _binary(data, length, valid, pa.binary()).dictionary_encode()
    texts = [value.decode("utf-8", "backslashreplace") for value in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def _binary(data: Bytes, length: Longs, valid: Flags | None, type_: pa.DataType) -> pa.Array[Any]:
    """An array of text or binary values from their bytes."""
    if len(data) > np.iinfo(np.int32).max:
        raise ValueError("a column of more than 2 GiB of text")
    offsets = np.zeros(len(length) + 1, dtype=np.int32)
    np.cumsum(length, out=offsets[1:])
    buffers = [_mask(valid), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(type_, len(length), buffers)


def _ranges(start: Longs, size: Longs) -> Longs:
    """Indices of all bytes of all ranges, one range after the other."""
    ends = np.cumsum(size)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(start - (ends - size), size) + np.arange(total)


def _native(raw: Rows, type_: pa.DataType, order: str) -> np.ndarray[Any, Any]:
    native = np.dtype(type_.to_pandas_dtype())
    values = np.ascontiguousarray(raw).reshape(-1).view(native.newbyteorder(order))
    return cast("np.ndarray[Any, Any]", values.astype(native, copy=False))


def _integer(size: int, signed: bool) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(f"{'i' if signed else 'u'}{size}"))
