"""Names and kernel addresses of a capture replaced by aliases, so that a report can leave the house.

The same value has the same alias in all tables of one result, in order of first appearance. Page offsets,
user-space addresses, pids and times stay: what was missed, and why, cannot be told without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from schemas import TABLES
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KINDS: Final = ("comm", "path", "host", "ptr")
POINTER_UNIT: Final = "kernel address"
_MEANING: Final = {
    "comm": "names of tasks",
    "path": "the path of the capture and its recorder",
    "host": "the name of the host",
    "ptr": "kernel addresses",
}


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds named by ``comm,ptr`` or ``all``, in the order of `KINDS`.

    Raises:
        UsageError: A kind is not known.
    """
    asked = set(KINDS) if text == "all" else set(text.split(","))
    unknown = sorted(asked - set(KINDS))
    if unknown:
        raise UsageError(
            f"nothing to redact is named {unknown[0]!r}",
            where="--redact",
            hint=f"use {', '.join(KINDS)}, several with commas between, or all",
        )
    return tuple(kind for kind in KINDS if kind in asked)


def redact(tables: Mapping[str, pa.Table], kinds: Iterable[str]) -> dict[str, pa.Table]:
    """Replace what can name people, machines and kernel addresses.

    Args:
        tables: Result tables by name.
        kinds: Some of `KINDS`.

    Returns:
        The tables with aliases (``task-1``, ``capture``, ``host``, addresses 0x1, 0x2, ...), without
        metadata that tell the same, and with a row in ``quality`` that says so.
    """
    asked = tuple(kinds)
    frames = {name: pl.DataFrame(table) for name, table in tables.items()}
    names = _names(frames, asked)
    if "ptr" in asked:
        frames = _pointers(frames)
    if "comm" in asked:
        frames = {
            name: frame.with_columns(pl.col(column).replace(names["comm"]) for column in _comms(frame))
            for name, frame in frames.items()
        }
    fixed: dict[str, pl.Expr] = {}
    if "path" in asked:
        fixed["path"] = pl.lit("capture")
    if "host" in asked:
        fixed["hostname"] = pl.when(pl.col("hostname").is_not_null()).then(pl.lit("host"))
    if "path" in asked or "host" in asked:
        fixed["tool"] = pl.lit(None, pl.String)  # trace-cmd puts uname and more there
    frames["capture"] = frames["capture"].with_columns(**fixed)
    words = {word: alias for each in names.values() for word, alias in each.items()}
    longest = sorted(filter(None, words), key=len, reverse=True)
    if longest:
        effect = pl.col("effect").str.replace_many(longest, [words[word] for word in longest])
        frames["quality"] = frames["quality"].with_columns(effect)
    done = {name: TABLES[name].cast(frame.to_arrow()) for name, frame in frames.items()}
    said = f"Replaced by aliases: {', '.join(_MEANING[kind] for kind in asked)}."
    row = {"kind": "redacted", "severity": "info", "effect": said}
    notice = pa.Table.from_pylist([row], schema=TABLES["quality"].arrow)
    done["quality"] = TABLES["quality"].cast(pa.concat_tables([done["quality"], notice]))
    return done


def _names(frames: Mapping[str, pl.DataFrame], asked: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Alias of each name, by kind."""
    names: dict[str, dict[str, str]] = {}
    capture = frames["capture"].row(0, named=True)
    if "comm" in asked:
        shown = [frame[column].alias("comm") for frame in frames.values() for column in _comms(frame)]
        comms = pl.concat(shown).drop_nulls().unique(maintain_order=True)
        names["comm"] = {comm: f"task-{place}" for place, comm in enumerate(comms, 1)}
    if "path" in asked:
        names["path"] = {capture["path"]: "capture"}
    if "host" in asked and capture["hostname"]:
        names["host"] = {capture["hostname"]: "host"}
    return names


def _comms(frame: pl.DataFrame) -> list[str]:
    """The columns that hold names of tasks."""
    return [name for name in frame.columns if name == "comm" or name.endswith("_comm")]


def _pointers(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Kernel addresses by their places among all of them, in order of first appearance."""
    columns = {
        name: [column.name for column in TABLES[name].columns if column.unit == POINTER_UNIT]
        for name in frames
    }
    seen = [frames[name][column].rename("address") for name, own in columns.items() for column in own]
    known = pl.concat(seen).drop_nulls().unique(maintain_order=True).to_frame()
    alias = known.select("address", alias=pl.int_range(1, pl.len() + 1, dtype=pl.UInt64))
    return {
        name: frame.with_columns(
            frame.select(column)
            .join(alias, left_on=column, right_on="address", how="left", maintain_order="left")["alias"]
            .alias(column)
            for column in columns[name]
        )
        for name, frame in frames.items()
    }
