"""What a capture's clock and machine are not fit for: refused, or taken out, before anything rests on it.

``captures`` tells it in table ``quality``: clocks without a common order, times that are no ns, pages of
another size, page-table entries of another architecture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from schemas.errors import CaptureError
from schemas.provenance import CLOCKS_DIFFER, FOREIGN_ENTRIES, NO_NS, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFUSED: Final = {
    CLOCKS_DIFFER: "record everything with one clock: trace-cmd record -C mono -B NAME -C mono ...",
    PAGE_SIZE: "`replay inspect` says what is in it",
}
"""What makes every result wrong, and what to do then."""

_OF_TIMES: Final = ("ev_lock", "ev_switch")
"""Events that tell nothing but durations."""


def refuse_unfit(quality: pl.DataFrame, path: str) -> None:
    """Refuse a capture that no result would be right of.

    Args:
        quality: Table ``quality`` of the capture.
        path: File named in the error.

    Raises:
        CaptureError: It is one.
    """
    for row in quality.filter(pl.col("kind").is_in(list(_REFUSED))).to_dicts():
        raise CaptureError(
            "this capture cannot be replayed", path=path, found=row["effect"], hint=_REFUSED[row["kind"]]
        )


def fit_events(events: Mapping[str, pl.DataFrame], quality: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The ``ev_*`` tables without what they would be misread for.

    Args:
        events: The ``ev_*`` tables.
        quality: Table ``quality`` of the capture.
    """
    fit = dict(events)
    if not has_durations(quality):
        fit |= {name: fit[name].clear() for name in _OF_TIMES}
    if quality["kind"].is_in([FOREIGN_ENTRIES]).any():
        entries = fit["ev_migration_pte"]
        fit["ev_migration_pte"] = entries.with_columns(pte=pl.lit(None, entries.schema["pte"]))
    return fit


def without_durations(walks: pl.DataFrame) -> pl.DataFrame:
    """Tables ``walk`` or ``anon_walk`` without durations."""
    return walks.with_columns(observed_ns=pl.lit(None, pl.Int64))


def has_durations(quality: pl.DataFrame) -> bool:
    """Whether differences of times are durations, by table ``quality`` of the capture."""
    return not quality["kind"].is_in([NO_NS]).any()
