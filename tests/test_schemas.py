"""The tables are described, checked and kept; the errors say what, where and what to do."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas import TABLES, Table, errors
from schemas.errors import BatchIncomplete, CaptureError, ReplayError, SchemaError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVERY_COLUMN = [
    pytest.param(table, column, id=f"{table.name}.{column.name}")
    for table in TABLES.values()
    for column in table.columns
]

# The names that CONTRIBUTING.md promises to keep, in order.
STABLE = {
    "loop": "walk_id ts_ns stable_node rmap_item anon_vma mm address search_new_forks strategy first_pgoff "
    "last_pgoff iterations skip_addr_out_of_range skip_mm_mismatch rmap_one_calls ended_early predicted_ns "
    "iterations_least iterations_most observed_ns",
    "walk": "walk_id ts_ns end_ns cpu pid comm folio stable_node caller strategy loops iterations_total "
    "iterations_max skip_addr_out_of_range_max skip_mm_mismatch_max rmap_one_calls mappings_missed "
    "observed_ns predicted_ns iterations_total_least iterations_total_most iterations_max_least "
    "iterations_max_most held_up_ns predicted_low_ns predicted_high_ns uncertain",
    "miss": "walk_id strategy rmap_item mm address vm_start vm_end cause_event cause_ts_ns cause_pid "
    "first_pgoff last_pgoff page_pgoff mapped_by cause_kind cause_arguments cause_comm",
    "vma": "vma_id vma mm vm_start vm_end vm_pgoff anon_pgoff vm_flags anon_vma born_ts_ns died_ts_ns "
    "cause_event evidence",
    "avc": "avc anon_vma vma_id mm first_pgoff last_pgoff vm_start vm_end born_ts_ns died_ts_ns born_seq "
    "died_seq evidence uncertain",
    "rmap_item": "rmap_item stable_node mm address anon_vma kpfn vm_pgoff linear_page_index born_ts_ns "
    "died_ts_ns evidence address_least address_most uncertain",
    "quality": "kind cpu start_ns end_ns count effect severity",
    "summary": "strategy evidence walks loops time_ms_max iterations_max skip_addr_out_of_range_max "
    "skip_mm_mismatch_max iterations_total found missed iterations_max_least iterations_max_most "
    "iterations_total_least iterations_total_most time_ms_low time_ms_high",
}


def miss_rows(**changed: list[object]) -> pa.Table:
    """A right table ``miss`` of two rows, or one with some columns changed."""
    columns: dict[str, list[object]] = {
        "walk_id": [1, 2],
        "strategy": ["addr", "vm_pgoff"],
        "rmap_item": [0xFFFF_8880_107A_3D38, 0xFFFF_FFFF_FFFF_FFFF],
        "mm": [0xFFFF_8880_0246_B400] * 2,
        "address": [0x7F66_6DA2_1000, 0],
        "vm_start": [0x7F66_6DA2_1000, 0],
        "vm_end": [0x7F66_6DA2_2000, 4096],
        "cause_event": ["mremap", None],
        "cause_ts_ns": [26_236_485_077, None],
        "cause_pid": [212, None],
        "first_pgoff": [0x7F66_6DA2_1, 16],
        "last_pgoff": [0x7F66_6DA2_1, 16],
        "page_pgoff": [0x7F66_6DA1_0, 17],
        "mapped_by": ["migration_entry", None],
        "cause_kind": ["moved", None],
        "cause_arguments": ["0x7f666da10000, 4096, 4096, MREMAP_MAYMOVE", None],
        "cause_comm": ["ksmload", None],
    }
    return pa.table({**columns, **changed}, schema=TABLES["miss"].arrow)


@pytest.mark.parametrize("name", STABLE)
def test_stable_columns(name: str) -> None:
    assert TABLES[name].arrow.names == STABLE[name].split()


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_table_is_described(table: Table) -> None:
    assert TABLES[table.name] is table
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", table.name)
    assert re.fullmatch(r"\d+\.\d+", table.version)
    assert len(set(table.arrow.names)) == len(table.columns)
    assert table.doc.endswith(".")
    assert table.check(table.empty()).num_rows == 0


@pytest.mark.parametrize(("table", "column"), EVERY_COLUMN)
def test_column_is_described(table: Table, column: pa.Field) -> None:
    assert column.doc.endswith(".")
    assert column.source
    assert column.null != ""
    field = table.arrow.field(column.name)
    assert field.nullable == (column.null is not None)
    assert field.metadata[b"doc"].decode() == column.doc


@pytest.mark.parametrize(("table", "column"), EVERY_COLUMN)
def test_column_has_the_type_of_its_unit(table: Table, column: pa.Field) -> None:
    types = {"ns": pa.int64(), "pages": pa.uint64(), "kernel address": pa.uint64(), "ms": pa.float64()}
    if column.unit in types:
        assert column.type == types[column.unit]
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        assert column.unit is None
    assert column.name.endswith("_ns") == (column.unit == "ns")
    assert not column.name.endswith("pgoff") or column.unit == "pages"


@pytest.mark.parametrize("name", [name for name in TABLES if name.startswith("ev_")])
def test_event_tables_begin_alike(name: str) -> None:
    assert TABLES[name].arrow.names[:4] == ["seq", "ts_ns", "cpu", "pid"]


def test_check_keeps_the_data_and_the_metadata() -> None:
    rows = miss_rows()
    plain = rows.replace_schema_metadata({"replay.version": "9"})
    checked = TABLES["miss"].check(plain)
    assert checked.to_pylist() == rows.to_pylist()
    assert checked.schema.metadata[b"replay.schema"] == b"miss/1.1"
    assert checked.schema.metadata[b"replay.version"] == b"9"
    for mine, given in zip(checked.columns, rows.columns, strict=True):
        assert mine.chunk(0).buffers()[1].address == given.chunk(0).buffers()[1].address


@pytest.mark.parametrize(
    ("wrong", "column", "expected", "found"),
    [
        (lambda t: t.drop_columns(["cause_comm"]), "cause_comm", "column cause_comm", "no such column"),
        (lambda t: t.append_column("note", pa.nulls(2)), "note", "no further column", "column note"),
        (
            lambda t: t.rename_columns(["walk", *t.column_names[1:]]),
            "walk_id",
            "column walk_id",
            "column walk",
        ),
        (
            lambda t: t.select([1, 0, *range(2, t.num_columns)]),
            "walk_id",
            "column walk_id",
            "column strategy",
        ),
        (lambda t: t.set_column(9, "cause_pid", pa.array([1, 2])), "cause_pid", "int32", "int64"),
        (
            lambda t: t.set_column(3, "mm", pa.array([1, None], pa.uint64())),
            "mm",
            "no null",
            "1 nulls in 2 rows",
        ),
    ],
    ids=["missing", "too many", "renamed", "order", "type", "null"],
)
def test_check_says_what_differs(
    wrong: Callable[[pa.Table], pa.Table], column: str, expected: str, found: str
) -> None:
    with pytest.raises(SchemaError) as caught:
        TABLES["miss"].check(wrong(miss_rows()))
    assert (caught.value.table, caught.value.column) == ("miss", column)
    assert (caught.value.expected, caught.value.found) == (expected, found)


def test_a_table_of_an_older_minor_version_gets_the_columns_that_came_later() -> None:
    new = miss_rows()
    old = new.select(new.column_names[:10]).replace_schema_metadata({"replay.schema": "miss/1.0"})
    read = TABLES["miss"].check(TABLES["miss"].upgraded(old))
    assert read.select(new.column_names[:10]).to_pylist() == old.to_pylist()
    assert all(read[name].null_count == 2 for name in new.column_names[10:])
    for version in ("miss/0.0", "miss/1.1", "walk/1.0"):
        other = old.replace_schema_metadata({"replay.schema": version})
        assert TABLES["miss"].upgraded(other) is other


def test_check_names_the_version_that_wrote_the_table() -> None:
    old = miss_rows().replace_schema_metadata({"replay.schema": "miss/0.9"}).drop_columns(["mm"])
    with pytest.raises(SchemaError, match=r"table miss, column mm \(written as miss/0.9\)"):
        TABLES["miss"].check(old)


def test_cast_takes_what_polars_gives() -> None:
    frame = pl.DataFrame(miss_rows()).with_columns(pl.col("cause_pid").cast(pl.UInt32))
    given = frame.with_columns(cause_event=pl.lit(None)).to_arrow()
    assert given.schema.field("strategy").type != pa.string()
    cast = TABLES["miss"].cast(given)
    assert cast.to_pylist() == [{**row, "cause_event": None} for row in miss_rows().to_pylist()]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("cause_pid", pa.array([1, 1 << 31])),
        ("cause_pid", pa.array([1.0, 2.0])),
        ("mm", pa.array([1, -1])),
        ("strategy", pa.array([1, 2])),
        ("cause_event", pa.array([True, None])),
    ],
    ids=["too large", "real", "negative", "number", "bool"],
)
def test_cast_does_not_bend_values(column: str, values: pa.Array) -> None:
    rows = miss_rows()
    place = rows.column_names.index(column)
    with pytest.raises(SchemaError) as caught:
        TABLES["miss"].cast(rows.set_column(place, column, values))
    assert caught.value.column == column


def test_parquet_keeps_schema_version_and_descriptions(tmp_path: Path) -> None:
    pq.write_table(TABLES["miss"].check(miss_rows()), tmp_path / "miss.parquet")
    read = pq.read_table(tmp_path / "miss.parquet")
    assert read.schema.metadata[b"replay.schema"] == b"miss/1.1"
    assert read.schema.field("vm_end").metadata[b"unit"] == b"bytes"
    assert read.schema.field("cause_pid").metadata[b"null"] == b"not found in the capture"
    assert TABLES["miss"].check(read).equals(miss_rows())


def test_the_drawn_tree_of_errors_is_the_tree() -> None:
    drawn: dict[str, tuple[int, str | None]] = {}
    parent = code = None
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    (\|   )?[|`]-- (\w+) +(?:\[(\d+)\])?", line.replace(" [", "  [")):
            inner, name, number = match.groups()
            if not inner:
                parent, code = name, int(number)
            drawn[name] = (code, parent if inner else "ReplayError")
    real = {
        name: (kind.exit_code, kind.__bases__[0].__name__)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ReplayError) and kind is not ReplayError
    }
    assert drawn == real


def test_an_error_is_three_printable_lines() -> None:
    error = TruncatedError(
        "section ends\ntoo early",
        path="dir/\x1b[31mred\udcff.dat",
        offset=4096,
        cpu=1,
        expected="4096 bytes",
        found="12",
        hint="copy the capture again",
    )
    assert str(error).split("\n") == [
        r"section ends\ntoo early",
        r"dir/\x1b[31mred\udcff.dat, byte 4096 (0x1000), cpu 1: expected 4096 bytes, found 12",
        "copy the capture again",
    ]
    assert str(error).isascii()


@pytest.mark.parametrize(
    "error",
    [
        CaptureError("unreadable", path="a.dat", hint="look", offset=7),
        SchemaError("walk", column="pid", expected="int32", found="int64"),
        BatchIncomplete(2, 9, manifest="out/captures.parquet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel_between_processes(error: ReplayError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
