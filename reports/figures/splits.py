"""What calls of each kind added to the largest tree over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from reports.escape import plotly_label
from reports.figures.figure import Figure, axis_title, layout, lines, seconds_axis
from reports.figures.palette import OKABE_ITO
from reports.figures.svg_picture import DASHES
from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.facts.all import Facts

MAX_KINDS: Final = 6
MAX_POINTS: Final = 300


def draw(tables: Mapping[str, pa.Table], facts: Facts, detail: float) -> Figure | None:
    """A line for each kind of call: the VMAs that it had added so far; None: nothing is known."""
    origin, last = facts.capture["first_ts_ns"], facts.capture["last_ts_ns"]
    if facts.splits is None or origin is None or last is None:
        return None
    tree = facts.splits.tree
    frame = pl.DataFrame(tables["population"]).filter(tree_id=tree["tree_id"])
    if frame.is_empty():
        return None
    frame = frame.with_columns(name=pl.col("cause_event").fill_null("not known"))
    most = (
        frame.group_by("name")
        .agg(most=pl.col("vmas").abs().max())
        .sort(["most", "name"], descending=[True, False])
    )
    names = most["name"].head(MAX_KINDS).to_list()
    points = max(10, round(MAX_POINTS * detail))
    width = max(1, (last - origin) // points)
    data, rows = [], []
    for place, name in enumerate(names):
        own = frame.filter(name=name).sort("ts_ns", maintain_order=True)
        steps = own.group_by((pl.col("ts_ns") - origin) // width, maintain_order=True).agg(
            pl.col("ts_ns").last().alias("at"), pl.col("vmas").last()
        )
        x = [0.0, *((at - origin) / 1e9 for at in steps["at"]), (last - origin) / 1e9]
        y = [0, *steps["vmas"].to_list(), steps["vmas"][-1]]
        hover = [
            f"{plotly_label(name)}: {up:+,} VMAs by {across:.6f} s" for across, up in zip(x, y, strict=True)
        ]
        dash = list(DASHES)[place % len(DASHES)]
        colour = OKABE_ITO[place % len(OKABE_ITO)]
        data.append(
            lines(x, y, plotly_label(name), colour, line={"shape": "hv", "dash": dash}, hovertext=hover)
        )
        rows.append((name, max(y), min(y), y[-1]))
    lowest = min(min(trace["y"]) for trace in data)
    highest = max(max(trace["y"]) for trace in data)
    pad = max(1, highest - lowest) * 0.05
    left_out = len(most) - len(names)
    return Figure(
        name="splits",
        finding=facts.splits.sentences[0],
        title=f"VMAs that calls of each kind had added to the tree of anon_vma {tree['anon_vma']:#x}",
        caption=[
            "Insertions less removals; below 0: the calls took VMAs away. "
            f"At most {points} points a line: the last within each.",
            *(
                [f"{left_out} more kind{'s' if left_out > 1 else ''} of calls changed it less."]
                if left_out
                else []
            ),
        ],
        spec={
            "data": data,
            "layout": layout(
                340,
                78,
                30,
                showlegend=True,
                xaxis=seconds_axis(0, (last - origin) / 1e9),
                yaxis={
                    "title": axis_title("VMAs added"),
                    "range": [lowest - pad, highest + pad],
                    "tickformat": ",~r",
                    "nticks": 6,
                    "zeroline": True,
                },
            ),
        },
        table=grid("split_kinds", "call,most:n,least:n,at the end=at_end:n", rows),
    )
