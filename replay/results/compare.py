"""``replay compare``: two results side by side, differences first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.walks import OBSERVED, STOCK_STRATEGY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

SCHEMA_VERSION: Final = "1.1"

_ORDER: Final = (True, None, False)

MEASURES: Final = (
    ("time_ms_max", "Time_ms"),
    ("iterations_max", "Nr_iteration_total"),
    ("iterations_mean", "iterations a loop"),
    ("skip_addr_out_of_range_max", "Skip_addr_out_of_range"),
    ("skip_mm_mismatch_max", "Skip_mm_mismatch"),
    ("missed_percent", "missed %"),
)
"""What is compared, and its name. Sums over walks are not: a failed migration is tried again."""


def compare(before: Mapping[str, pa.Table], after: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Compare two results.

    Args:
        before: Result tables of A.
        after: Result tables of B.

    Returns:
        ``schema_version``; ``captures`` (the rows of table ``capture`` of A and B); ``ran``: the strategy
        that A's and B's kernel ran, as seen, else what stock kernels with its tree key run (null: not known);
        ``rows``: one for each
        strategy and measure that at least one side knows, with ``strategy, measure, a, b`` (null: not known)
        and ``differs`` (null where a side is not known), those that differ first; ``predictions``: where one
        side ran a strategy that the other side was replayed under, ``strategy, from, measure, predicted,
        observed``.
    """
    sides = [_measures(before), _measures(after)]
    captures = [each["capture"].to_pylist()[0] for each in (before, after)]
    ran = [each["native_strategy"] or STOCK_STRATEGY.get(each["page_offset_rule"] or "") for each in captures]
    names = list(dict.fromkeys(name for side in sides for name in side))
    rows: list[dict[str, Any]] = []
    for name in names:
        for key, shown in MEASURES:
            a, b = (side.get(name, {}).get(key) for side in sides)
            if a is not None or b is not None:
                differs = None if a is None or b is None else a != b
                rows.append({"strategy": name, "measure": shown, "a": a, "b": b, "differs": differs})
    rows.sort(key=lambda row: _ORDER.index(row["differs"]))
    return {
        "schema_version": SCHEMA_VERSION,
        "captures": captures,
        "ran": ran,
        "rows": rows,
        "predictions": [
            *_predictions("A", sides[0], sides[1], ran[1]),
            *_predictions("B", sides[1], sides[0], ran[0]),
        ],
    }


def _measures(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, Any]]:
    """Values by strategy and measure."""
    found: dict[str, dict[str, Any]] = {}
    for row in tables["summary"].to_pylist():
        values = {key: row.get(key) for key, _ in MEASURES}
        if row["iterations_total"] is not None and row["loops"]:
            values["iterations_mean"] = round(row["iterations_total"] / row["loops"], 3)
        if row["missed"] is not None and row["found"] is not None and row["missed"] + row["found"]:
            values["missed_percent"] = round(100 * row["missed"] / (row["missed"] + row["found"]), 1)
        found[row["strategy"]] = values
    return found


def _predictions(
    side: str,
    asked: Mapping[str, Mapping[str, Any]],
    ran: Mapping[str, Mapping[str, Any]],
    native: str | None,
) -> list[dict[str, Any]]:
    """What one side predicts under the strategy that the other side's kernel runs, beside what it did."""
    if native is None or native not in asked or OBSERVED not in ran:
        return []
    return [
        {
            "strategy": native,
            "from": side,
            "measure": shown,
            "predicted": asked[native][key],
            "observed": ran[OBSERVED][key],
        }
        for key, shown in MEASURES
        if asked[native][key] is not None and ran[OBSERVED][key] is not None
    ]
