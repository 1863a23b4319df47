"""Inner loops by iterations: one row a strategy, a dot a bin, so that no strategy hides another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from reports import svg
from reports.bins import IterationBin, loops_by_iterations
from reports.escape import plotly_label
from reports.facts import OBSERVED
from reports.figure import Figure
from reports.palette import strategy_colour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts import Facts

MAX_ROWS: Final = 12
"""Strategies that the figure shows."""

MAX_LABELS: Final = 40
"""Dots up to which each dot carries its count."""

_ZERO: Final = math.log10(0.4)
"""Place of zero on the logarithmic axis, left of one."""


def draw(loop: pa.Table, facts: Facts) -> Figure | None:
    """Inner loops by iterations: one row a strategy, a dot a bin, iterations on a logarithmic axis."""
    bins = loops_by_iterations(loop)
    names = [name for name in facts.strategies if name in bins][:MAX_ROWS]
    if not names:
        return None
    shown = {name: bins[name] for name in names}
    labels = sum(map(len, shown.values())) <= MAX_LABELS
    most = max(each[-1].most for each in shown.values())
    ticks = [
        *([(_ZERO, "0")] if any(each[0].most == 0 for each in shown.values()) else []),
        *svg.log_ticks(most),
    ]
    height = 46 * len(names) + 70
    left = 14 + 7.5 * max(len(name) for name in names)
    x = svg.Axis(ticks[0][0] - 0.15, math.log10(max(most, 10)) + 0.2, min(left, 220), svg.WIDTH - 20, ticks)
    y = svg.Axis(
        len(names) - 0.5, -0.5, height - 50, 10, [(row, name[:24]) for row, name in enumerate(names)]
    )
    traces, marks = [], []
    for row, (name, each) in enumerate(shown.items()):
        colour = strategy_colour(name, row)
        traces.append(_dots(name, row, each, colour, labels=labels))
        for one in each:
            marks.append(svg.mark(x.at(_place(one)), y.at(row), _size(one), colour, diamond=name == OBSERVED))
            if labels:
                above = float(y.at(row)) - _size(one) / 2 - 5
                marks.append(svg.text(x.at(_place(one)), f"{above:.1f}", f"{one.loops:,}", "middle"))
    title = "iterations of one inner loop (logarithmic)"
    layout = {
        "height": height + 20,
        "margin": {"l": 10, "r": 20, "t": 10, "b": 60},
        "showlegend": False,
        "xaxis": {
            "title": {"text": title, "standoff": 8},
            "range": [x.low, x.high],
            "tickvals": [value for value, _ in ticks],
            "ticktext": [name for _, name in ticks],
        },
        "yaxis": {
            "range": [len(names) - 0.5, -0.5],
            "tickvals": list(range(len(names))),
            "ticktext": [plotly_label(name) for name in names],
            "automargin": True,
            "fixedrange": True,
            "zeroline": False,
        },
    }
    alt = "Most iterations in one inner loop: " + ", ".join(
        f"{name} {each[-1].most:,}" for name, each in shown.items()
    )
    return Figure(
        name="iterations",
        title="Iterations of the inner loops",
        alt=alt + ".",
        caption=_caption(loop, shown, facts),
        spec={"data": traces, "layout": layout},
        picture=svg.picture(height, alt, svg.grid(x, y, title), *marks),
        header="strategy,iterations:n,loops:n",
        rows=[(name, _span(one), str(one.loops)) for name, each in shown.items() for one in each],
    )


def _dots(name: str, row: int, each: Sequence[IterationBin], colour: str, *, labels: bool) -> dict[str, Any]:
    label = plotly_label(name)
    observed = name == OBSERVED
    return {
        "type": "scatter",
        "mode": "markers+text" if labels else "markers",
        "name": label,
        "x": [_place(one) for one in each],
        "y": [row] * len(each),
        "text": [f"{one.loops:,}" for one in each],
        "textposition": "top center",
        "cliponaxis": False,
        "hovertext": [f"{label}: {one.loops:,} loops of {_span(one)} iterations" for one in each],
        "hoverinfo": "text",
        "marker": {
            "symbol": "diamond-open" if observed else "circle",
            "size": [round(_size(one), 1) for one in each],
            "opacity": 1,
            "color": colour,
            "line": {"width": 2 if observed else 0},
        },
    }


def _caption(loop: pa.Table, shown: Mapping[str, Sequence[IterationBin]], facts: Facts) -> list[str]:
    counted = sum(one.loops for each in shown.values() for one in each)
    dots = sum(map(len, shown.values()))
    caption = [
        "One row a strategy; diamonds are the kernel's own counts. The diameter grows with the logarithm of "
        "the number of loops, which stands above where there is room.",
        f"{counted:,} loops are shown as {dots:,} dots: exact up to 9 iterations, then ten bins a decade.",
    ]
    unknown = loop["iterations"].null_count
    if unknown:
        caption.append(f"{unknown:,} loops whose iterations are not known are not shown.")
    absent = len(facts.strategies) - len(shown)
    if absent:
        caption.append(f"{absent} of {len(facts.strategies)} rows of the strategy table are not shown here.")
    return caption


def _place(one: IterationBin) -> float:
    """Place on the logarithmic axis: exact for one value, the middle of a wider bin."""
    if one.most == 0:
        return _ZERO
    return round((math.log10(one.least) + math.log10(one.most)) / 2, 4)


def _size(one: IterationBin) -> float:
    return 9 + 4 * math.log10(one.loops)


def _span(one: IterationBin) -> str:
    return f"{one.least:,}" if one.least == one.most else f"{one.least:,} to {one.most:,}"
