r"""The kinds of columns: one Arrow type and one unit for each kind of value, everywhere.

====================  ========  ==================  ===========================================
kind                  type      unit                value
====================  ========  ==================  ===========================================
``pointer``           uint64    kernel address      raw, never hashed
``user_address``      uint64    bytes               in the process's address space
``pgoff``             uint64    pages               page offset; first and last are inclusive
``count``             int64     count               how many
``nanoseconds``       int64     ns                  a time of the trace clock, or a duration
``int64``             int64     None                numbers that replay gives, return values
``int32``             int32     None or as given    small kernel integers (pid, cpu, codes)
``uint64``            uint64    None or as given    kernel words (flags, raw arguments)
``flag``              bool      None                true or false
``real``              float64   as given            measured or fitted real numbers
``text``              string    None                UTF-8; what is not UTF-8 comes as ``\xNN``
====================  ========  ==================  ===========================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.table import Column

if TYPE_CHECKING:
    from collections.abc import Callable

    Kind = Callable[..., Column]


def _kind(type_: pa.DataType, unit: str | None) -> Kind:
    def column(
        name: str, doc: str, source: str, *, null: str | None = None, unit: str | None = unit
    ) -> Column:
        return Column(name=name, type=type_, unit=unit, null=null, doc=doc, source=source)

    return column


pointer = _kind(pa.uint64(), "kernel address")
user_address = _kind(pa.uint64(), "bytes")
pgoff = _kind(pa.uint64(), "pages")
count = _kind(pa.int64(), "count")
nanoseconds = _kind(pa.int64(), "ns")
int64 = _kind(pa.int64(), None)
int32 = _kind(pa.int32(), None)
uint64 = _kind(pa.uint64(), None)
real = _kind(pa.float64(), None)
flag = _kind(pa.bool_(), None)
text = _kind(pa.string(), None)
