"""Who waited, over time: a lane for the walks, one for each task and what it waits in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.escape import plotly_label
from reports.figures.bins import merged_spans
from reports.figures.figure import Figure, boxes, layout, seconds_axis
from reports.figures.palette import OKABE_ITO
from reports.figures.svg_picture import CHARACTER
from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.all import Facts

MAX_LANES: Final = 8
_LANE: Final = 34
_TOP: Final = 34
_WALKS: Final = OKABE_ITO[1]
_BEHIND: Final = OKABE_ITO[0]
_OTHER: Final = "#8b949e"


def draw(tables: Mapping[str, pa.Table], facts: Facts, detail: float) -> Figure | None:
    """Waits to change trees as boxes in time, below the walks; None: nobody waited, as far as it is known."""
    origin, waits = facts.capture["first_ts_ns"], facts.waits
    if origin is None or waits is None or not waits.count:
        return None
    groups = [row for row in waits.groups if row["is_write"]]
    shown = groups[:MAX_LANES]
    frame = pl.DataFrame(tables["wait"]).filter("is_write").drop_nulls("end_ns")
    walks = pl.DataFrame(tables["walk"].select(["walk_id", "ts_ns", "end_ns"])).unique("walk_id").drop_nulls()
    start = min(value for value in (frame["ts_ns"].min(), walks["ts_ns"].min()) if isinstance(value, int))
    end = max(value for value in (frame["end_ns"].max(), walks["end_ns"].max()) if isinstance(value, int))
    names = ["walks", *(f"{row['comm'] or '?'} {row['doing'] or ''}".strip() for row in shown)]
    lanes = len(names)
    data = _lane(walks, lanes - 1, _WALKS, "walk", (start, end, origin), detail)
    for place, row in enumerate(shown):
        own = frame.filter(pl.col("comm").eq_missing(row["comm"]), pl.col("doing").eq_missing(row["doing"]))
        behind = pl.col("behind_walks_ns") * 2 >= pl.col("end_ns") - pl.col("ts_ns")
        for rows, colour, words in (
            (own.filter(behind), _BEHIND, "wait behind a walk"),
            (own.filter(~behind), _OTHER, "other wait"),
        ):
            data += _lane(rows, lanes - 2 - place, colour, words, (start, end, origin), detail)
    seen: set[str] = set()
    for trace in data:
        trace["showlegend"] = trace["name"] not in seen
        seen.add(trace["name"])
    left = int(24 + CHARACTER * max(len(name[:30]) for name in names))
    pad = (end - start) * 0.01
    spec = {
        "data": data,
        "layout": layout(
            _LANE * lanes + _TOP + 54,
            left,
            _TOP,
            showlegend=True,
            xaxis=seconds_axis((start - origin - pad) / 1e9, (end - origin + pad) / 1e9),
            yaxis={
                "range": [-0.6, lanes - 0.4],
                "tickvals": list(range(lanes)),
                "ticktext": [plotly_label(name[:30]) for name in reversed(names)],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
        ),
    }
    return Figure(
        name="victims",
        finding=waits.sentences[0],
        title="Waits for the lock of an anon_vma family, below the walks that hold it",
        caption=_caption(waits.unfinished, len(groups) - len(shown)),
        spec=spec,
        table=grid(
            "waits_shown",
            "lane,waits:n,lost ms=lost_ns:ms",
            [(name, row["waits"], row["lost_ns"]) for name, row in zip(names[1:], shown, strict=True)],
        ),
    )


def _lane(
    rows: pl.DataFrame, height: int, colour: str, words: str, span: tuple[int, int, int], detail: float
) -> list[dict[str, Any]]:
    start, end, origin = span
    spans = merged_spans(rows, start, end, detail)
    if not spans:
        return []
    hover = [
        f"{count:,} {words}{'s' if count > 1 else ''}, {took / 1e6:,.3f} ms, "
        f"from {(begin - origin) / 1e9:.6f} s"
        for begin, _, count, took in spans
    ]
    places = [
        ((begin - origin) / 1e9, (stop - origin) / 1e9, height - 0.36, height + 0.36)
        for begin, stop, _, _ in spans
    ]
    return [boxes(places, words, colour, hovertext=hover, legendgroup=words)]


def _caption(unfinished: int, left_out: int) -> Sequence[str]:
    caption = [
        "A walk holds the lock of the root anon_vma for reading, loop by loop; faults, forks, splits, merges "
        "and exits of the whole family need it for writing. Waits and walks that lie close together are one "
        "box. A wait counts as behind a walk if a walk of the family ran for half of it."
    ]
    if unfinished:
        caption.append(f"{unfinished:,} waits whose end is not in the capture are not drawn.")
    if left_out:
        caption.append(f"{left_out:,} more tasks and calls are in the table only.")
    return caption
