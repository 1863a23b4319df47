"""The arguments of a system call in words, as in its manual page: ``0x7f12345000, 4096, PROT_READ``."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from replay.state.call_arguments import ARGUMENTS, said

_FIXED: Final = 2
_DIGITS: Final = 16

_ADDRESS_AND_LENGTH: Final = ("munmap", "mlock", "munlock")
_AND_WORDS: Final = ("mprotect", "pkey_mprotect", "madvise", "mlock2", "mbind")


def call_text(asked: pl.DataFrame, ev_syscall: pl.DataFrame) -> pl.Series:
    """The arguments of each call.

    Args:
        asked: ``cause_event`` (name of the call) and ``call`` (place of its entry).
        ev_syscall: Table ``ev_syscall``.

    Returns:
        One text a row; null: no system call, or its arguments are not in the capture.
    """
    entries = ev_syscall.filter(~pl.col("is_exit")).select("name", *ARGUMENTS, call="seq")
    rows = asked.select("call", name="cause_event").join(
        entries, on=["call", "name"], how="left", maintain_order="left"
    )
    hexadecimal = {f"hex{number}": _hexadecimal(rows[f"arg{number}"]) for number in (0, 4, 5)}
    rows = rows.with_columns(words=said(rows), **hexadecimal)
    address, name = pl.col("hex0"), pl.col("name")
    target = pl.when(pl.col("arg3") & _FIXED != 0).then(pl.format(", {}", "hex4"))
    mapped = pl.when(pl.col("arg0") == 0).then(pl.lit("NULL")).otherwise(address)
    descriptor = pl.col("arg4").cast(pl.Int64).cast(pl.Int32, wrap_numerical=True)
    return rows.select(
        text=pl.when(name.is_in(_ADDRESS_AND_LENGTH))
        .then(pl.format("{}, {}", address, "arg1"))
        .when(name.is_in(_AND_WORDS))
        .then(pl.format("{}, {}, {}", address, "arg1", pl.col("words").fill_null("0")))
        .when(name == "mremap")
        .then(
            pl.format(
                "{}, {}, {}, {}{}",
                address,
                "arg1",
                "arg2",
                pl.col("words").fill_null("0"),
                target.fill_null(""),
            )
        )
        .when(name == "mmap")
        .then(pl.format("{}, {}, {}, {}, {}", mapped, "arg1", "words", descriptor, "hex5"))
        .when(name == "brk")
        .then(address)
        .otherwise("words")
    )["text"]


def _hexadecimal(numbers: pl.Series) -> pl.Series:
    """``0x`` and the digits; null where the number is."""
    every = numbers.fill_null(0).to_numpy().astype(">u8").tobytes().hex().encode()
    ends = pa.py_buffer(np.arange(len(numbers) + 1, dtype=np.int64) * _DIGITS)
    whole = pa.Array.from_buffers(pa.large_string(), len(numbers), [None, ends, pa.py_buffer(every)])
    digits = pl.DataFrame(pa.table({"digits": whole}))["digits"].str.strip_chars_start("0")
    shown = pl.when(numbers.is_not_null()).then(
        pl.format("0x{}", pl.when(digits == "").then(pl.lit("0")).otherwise(digits))
    )
    return pl.select(shown).to_series()
