"""Column and Table: a table described as data, and the check that a pyarrow table is one.

A description carries what a reader of the numbers needs and what a Parquet file keeps in its
metadata: the Arrow type, the unit, what null means, the meaning, and the kernel function or
file that the value comes from.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pyarrow as pa

from schemas.errors import SchemaError

SCHEMA_KEY: Final = b"replay.schema"
"""Key of the schema metadata that holds ``NAME/VERSION``."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Name of the column; the kernel's word where the kernel has one.
        type: Arrow type.
        unit: ``ns``, ``pages``, ``bytes``, ``count`` and so on; None: the value has no unit.
        null: What null means; None: the column is never null.
        doc: Meaning, in one or two sentences.
        source: Kernel function, event or part of this project that the value comes from.
    """

    name: str
    type: pa.DataType
    unit: str | None
    null: str | None
    doc: str
    source: str

    @property
    def field(self) -> pa.Field:
        """The Arrow field; its metadata holds doc, source, unit and null."""
        metadata = {"doc": self.doc, "source": self.source}
        if self.unit is not None:
            metadata["unit"] = self.unit
        if self.null is not None:
            metadata["null"] = self.null
        return pa.field(self.name, self.type, nullable=self.null is not None, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """One table: its name, its version and its columns in order.

    Attributes:
        name: Stable name; ``tables/NAME.parquet`` in a result folder.
        version: ``MAJOR.MINOR``. A new nullable column raises MINOR; a column that is renamed,
            retyped, removed or that changes its meaning raises MAJOR. A name is never used again.
        doc: What one row is.
        columns: The columns, in order.
    """

    name: str
    version: str
    doc: str
    columns: tuple[Column, ...]

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with the descriptions in the metadata of the fields and of the schema."""
        metadata = {SCHEMA_KEY: f"{self.name}/{self.version}".encode(), b"doc": self.doc.encode()}
        return pa.schema([column.field for column in self.columns], metadata=metadata)

    def empty(self) -> pa.Table:
        """A table of this schema without a row."""
        return self.arrow.empty_table()

    def upgraded(self, table: pa.Table) -> pa.Table:
        """A table of an older minor version with the columns that came later, null; others as they are."""
        written = (table.schema.metadata or {}).get(SCHEMA_KEY, b"").decode(errors="replace")
        name, _, version = written.partition("/")
        major, minor = self.version.split(".")
        its_major, _, its_minor = version.partition(".")
        if (name, its_major) != (self.name, major) or not its_minor.isdigit() or int(its_minor) >= int(minor):
            return table
        for column in self.columns:
            if column.name not in table.column_names and column.null is not None:
                table = table.append_column(column.field, pa.nulls(len(table), column.type))
        return table.select(self.arrow.names) if set(table.column_names) == set(self.arrow.names) else table

    def check(self, table: pa.Table) -> pa.Table:
        """Return ``table`` with this schema's metadata, or say where it differs from the schema.

        Checked: the names and their order, the types, and that columns without a null meaning
        hold no null. Schema metadata that ``table`` has besides stays. The data are not copied.

        Raises:
            SchemaError: At the first difference.
        """
        written = (table.schema.metadata or {}).get(SCHEMA_KEY)
        version = written.decode(errors="replace") if written else None
        if table.column_names != self.arrow.names:
            differing, wanted, found = _first_name_difference(self.arrow.names, table.column_names)
            raise SchemaError(self.name, column=differing, expected=wanted, found=found, written=version)
        for column, values in zip(self.columns, table.columns, strict=True):
            if values.type != column.type:
                raise SchemaError(
                    self.name,
                    column=column.name,
                    expected=str(column.type),
                    found=str(values.type),
                    written=version,
                )
            if column.null is None and values.null_count:
                raise SchemaError(
                    self.name,
                    column=column.name,
                    expected="no null",
                    found=f"{values.null_count} nulls in {len(values)} rows",
                    written=version,
                )
        metadata = {**(table.schema.metadata or {}), **(self.arrow.metadata or {})}
        return pa.table(table.columns, schema=self.arrow.with_metadata(metadata))

    def cast(self, table: pa.Table) -> pa.Table:
        """``check`` after undoing the storage types that other libraries choose.

        polars hands strings over as ``large_string`` or ``string_view``, lengths as ``uint32``, and a
        column that holds only nulls as ``null``. These become the types of the schema; a value that
        does not fit, and any other difference, is an error.

        Raises:
            SchemaError: As for ``check``.
        """
        if table.column_names != self.arrow.names:
            return self.check(table)
        arrays = [
            self._cast_column(column, values)
            for column, values in zip(self.columns, table.columns, strict=True)
        ]
        fields = [pa.field(c.name, a.type) for c, a in zip(self.columns, arrays, strict=True)]
        return self.check(pa.table(arrays, schema=pa.schema(fields, metadata=table.schema.metadata)))

    def _cast_column(self, column: Column, values: pa.ChunkedArray) -> pa.ChunkedArray:
        if values.type == column.type or not _same_kind(values.type, column.type):
            return values
        try:
            if pa.types.is_large_string(values.type):
                return pa.chunked_array([_short(each) for each in values.chunks], column.type)
            if pa.types.is_null(values.type):
                return pa.chunked_array([pa.nulls(len(values), column.type)])
            return values.cast(column.type)
        except pa.ArrowInvalid as error:
            raise SchemaError(
                self.name, column=column.name, expected=str(column.type), found=str(error)
            ) from error


def _first_name_difference(wanted: list[str], found: list[str]) -> tuple[str, str, str]:
    """The first column that differs, what was expected there and what is there."""
    for want, have in zip(wanted, found, strict=False):
        if want != have:
            return want, f"column {want}", f"column {have}"
    if len(found) < len(wanted):
        return wanted[len(found)], f"column {wanted[len(found)]}", "no such column"
    return found[len(wanted)], "no further column", f"column {found[len(wanted)]}"


def _short(values: pa.Array) -> pa.Array:
    """``large_string`` as ``string``: what Arrow's cast does, whose import takes longer than this.

    Raises:
        ArrowInvalid: It is more than 2 GiB of text.
    """
    valid, ends, text = values.buffers()
    last = values.offset + len(values)
    wide = memoryview(ends or bytes(8)).cast("B")[: 8 * (last + 1)]
    if (size := wide.cast("q")[-1]) >= 1 << 31:
        raise pa.ArrowInvalid(f"{size:,} bytes of text")
    narrow = wide.cast("i")[sys.byteorder == "big" :: 2].tobytes()  # the lower half of each
    buffers = [valid, pa.py_buffer(narrow), text]
    return pa.Array.from_buffers(pa.string(), len(values), buffers, offset=values.offset)


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two types only store the same kind of value differently."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_string(wanted):
        return bool(pa.types.is_large_string(found) or pa.types.is_string_view(found))
    return bool(pa.types.is_integer(wanted) and pa.types.is_integer(found))
