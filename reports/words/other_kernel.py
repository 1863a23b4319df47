"""What the documents say of the same history by another kernel's rules: table ``other_kernel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.words.sentences import bounded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

COLUMNS: Final = (("iterations_max", "one_loop"), ("iterations_total", "in_all"), ("missed", "missed"))
"""Columns that both tables have, each printed as it is here and as it would be there."""

NATIVE: Final = {"6.12": "full", "7.3": "linear"}
"""What a kernel with these rules looks up."""

MEASURES: Final = (
    "one_loop: Nr_iteration_total; in_all: iterations of all loops; a..b: bounds, an operation on the tree "
    "was half done; -: not known.",
    "As here, since no capture tells: what ksmd would have merged and when, which walks there would have "
    "been, which pages were mapped, and the addresses that the kernel chose.",
)


def title(rows: Rows) -> str:
    """Heading; rows of table ``other_kernel``, not none."""
    return f"The same walks over trees kept by the rules of {rows[0]['kernel_rules']} (predicted)"


def verdict(rows: Rows) -> str:
    """What a kernel with these rules would cost itself."""
    native = NATIVE.get(rows[0]["kernel_rules"])
    most = [bounded(row, "iterations_max") for row in rows if row["strategy"] == native]
    known = most and most[0] is not None
    return f"Such a kernel looks up {native}: {most[0]} iterations at most in an inner loop." if known else ""
