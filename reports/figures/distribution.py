"""How iterations, lock holds and walks are distributed: a row a strategy, a bar a bin, the kernel's on top.

Heights grow with the logarithm of the number, so that the one loop that hurts is seen beside a million that
do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reports.escape import plotly_label
from reports.figures.figure import Figure, axis_title, boxes, labels, layout, marks
from reports.figures.palette import INK, strategy_colour
from reports.figures.scales import count_ticks, time_name, time_ticks
from reports.figures.svg_picture import CHARACTER
from reports.grid import grid
from schemas.walks import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.facts.all import Facts
    from reports.facts.quantiles import Bin, Distribution

MAX_ROWS: Final = 12
"""Strategies that a figure shows."""

MAX_LABELS: Final = 60
"""Bars up to which each carries its number."""

_ROW: Final = 54
_ZERO: Final = -0.4
"""Place of zero on the logarithmic axis, left of one."""


@dataclass(frozen=True)
class Measure:
    """What is distributed.

    Attributes:
        name: Name of the figure.
        title: What is drawn.
        axis: Title of the axis.
        of: What has the value: ``loops`` or ``walks``.
        timed: The value is a time in ns, else a number of iterations.
        caption: What the values are.
    """

    name: str
    title: str
    axis: str
    of: str
    timed: bool
    caption: str


ITERATIONS: Final = Measure(
    "iterations",
    "Iterations of the inner loops",
    "iterations of one inner loop (log)",
    "loops",
    timed=False,
    caption="An iteration is one VMA of the tree that rmap_walk_ksm() looks at.",
)
HOLDS: Final = Measure(
    "holds",
    "How long an inner loop holds the anon_vma lock",
    "lock hold of one inner loop (log)",
    "loops",
    timed=True,
    caption="A strategy's holds are predicted from the fit over this capture's walks.",
)
TIMES: Final = Measure(
    "times",
    "How long the walks take",
    "time of one walk, from entry to return (log)",
    "walks",
    timed=True,
    caption="Observed: entry to return in the capture, with waits and time off the CPU. A strategy's times "
    "are predicted from the fit over this capture's walks.",
)


def draw(measure: Measure, found: Mapping[str, Distribution], facts: Facts) -> Figure | None:
    """A row a strategy; what the kernel did lies over the row of the strategy that it ran, or has its own.

    Args:
        measure: What is distributed.
        found: Its distributions by strategy.
        facts: For the order of the strategies, and which one the kernel ran.
    """
    if not found:
        return None
    names = [name for name in facts.strategies if name in found and name != OBSERVED][:MAX_ROWS]
    seen = found.get(OBSERVED)
    host = facts.ran if facts.ran in names else OBSERVED
    if seen is not None and host == OBSERVED:
        names = [OBSERVED, *names]
        seen = None  # it has a row of its own
    shown = {name: found[name] for name in names}
    everything = [one for each in found.values() for one in each.bins]
    most, least = max(one.most for one in everything), min(one.least for one in everything)
    tallest = max(one.count for one in everything)
    numbers = sum(len(each.bins) for each in shown.values()) <= MAX_LABELS
    data: list[dict[str, Any]] = []
    for row, (name, each) in enumerate(shown.items()):
        data += _row(
            measure,
            name,
            len(names) - 1 - row,
            each,
            tallest,
            numbers=numbers,
            hosts=seen is not None and name == host,
        )
    if seen is not None:
        data.append(_observed(measure, seen, len(names) - 1 - names.index(host), tallest))
    ticks = time_ticks(least, most) if measure.timed else count_ticks(1, most)
    if not measure.timed and least == 0:
        ticks = [(_ZERO, "0"), *ticks]
    left = int(24 + CHARACTER * max(len(name[:24]) for name in names))
    spec = {
        "data": data,
        "layout": layout(
            _ROW * len(names) + 96,
            min(left, 240),
            34 if seen is not None else 16,
            showlegend=seen is not None,
            xaxis={
                "title": axis_title(measure.axis),
                "range": [
                    min(_place(least) - 0.15, ticks[0][0] - 0.15),
                    max(_place(most) + 0.15, _place(least) + 1),
                ],
                "tickvals": [value for value, _ in ticks],
                "ticktext": [text for _, text in ticks],
                "zeroline": False,
            },
            yaxis={
                "range": [-0.08, len(names) + 0.02],
                "tickvals": [len(names) - 0.75 - row for row in range(len(names))],
                "ticktext": [plotly_label(name[:24]) for name in names],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
        ),
    }
    return Figure(
        name=measure.name,
        finding=finding(measure, found, facts),
        title=measure.title,
        caption=_caption(measure, found, names, facts, overlaid=host != OBSERVED),
        spec=spec,
        table=grid(
            f"{measure.name}_bins",
            "strategy,from:ms,to:ms," if measure.timed else f"strategy,from:n,to:n,{measure.of}:n",
            [(name, one.least, one.most, one.count) for name, each in found.items() for one in each.bins],
        ),
    )


def finding(measure: Measure, found: Mapping[str, Distribution], facts: Facts) -> str:
    """The largest value of each strategy, those that agree together."""
    by_value: dict[int, list[str]] = {}
    for name in facts.strategies:
        if name in found:
            by_value.setdefault(found[name].most, []).append(name)
    said = [f"{', '.join(names)} {value_name(measure, most)}" for most, names in by_value.items()]
    of = ", of those counted" if facts.counted["bounded"] else ""
    what = {
        "iterations": f"Most iterations of one inner loop{of}",
        "holds": "Longest lock hold of one inner loop",
    }
    return f"{what.get(measure.name, 'Longest walk')}: {'; '.join(said)}."


def value_name(measure: Measure, value: int) -> str:
    """A value with its unit."""
    return time_name(value) if measure.timed else f"{value:,}"


def _row(
    measure: Measure, name: str, bottom: int, each: Distribution, tallest: int, *, numbers: bool, hosts: bool
) -> list[dict[str, Any]]:
    label = plotly_label(name)
    tops = [bottom + _height(one.count, tallest) for one in each.bins]
    places = [_place(one.least) for one in each.bins]
    halves = [0.045 if one.least < 4 or one.least > 9 else 0.022 for one in each.bins]
    hover = [f"{label}: {one.count:,} {measure.of} of {_span(measure, one)}" for one in each.bins]
    drawn = [
        boxes(
            [(x - half, x + half, bottom, top) for x, half, top in zip(places, halves, tops, strict=True)],
            label,
            strategy_colour(name, bottom),
            showlegend=False,
            hovertext=hover,
        )
    ]
    if numbers:
        heights = [top + (0.1 if hosts else 0) for top in tops]
        drawn.append(labels(places, heights, [f"{one.count:,}" for one in each.bins]))
    return drawn


def _observed(measure: Measure, seen: Distribution, bottom: int, tallest: int) -> dict[str, Any]:
    return marks(
        [_place(one.least) for one in seen.bins],
        [bottom + _height(one.count, tallest) for one in seen.bins],
        "observed: counted by the kernel" if not measure.timed else "observed: measured in the capture",
        "diamond-open",
        10,
        INK,
        cliponaxis=False,
        hovertext=[f"observed: {one.count:,} {measure.of} of {_span(measure, one)}" for one in seen.bins],
    )


def _caption(
    measure: Measure, found: Mapping[str, Distribution], names: Sequence[str], facts: Facts, *, overlaid: bool
) -> list[str]:
    counted = sum(each.count for each in found.values())
    bars = sum(len(each.bins) for each in found.values())
    caption = [
        measure.caption,
        f"Height grows with the logarithm of the number of {measure.of}; {counted:,} values are shown as "
        f"{bars:,} bars" + ("." if measure.timed else ": exact up to 9, then ten a decade."),
    ]
    if overlaid and OBSERVED in found:
        caption.append(f"Diamonds: what the kernel did, over the row of {facts.ran_words}.")
    unknown = sum(each.unknown for each in found.values())
    if unknown:
        caption.append(f"{unknown:,} values that are not known are not shown.")
    absent = [name for name in facts.strategies if name not in found]
    if absent:
        caption.append(f"Nothing is known of {', '.join(absent)}.")
    left_out = len([name for name in found if name not in (*names, OBSERVED)])
    if left_out:
        caption.append(f"{left_out} more strategies are not drawn.")
    return caption


def _place(least: int) -> float:
    """Place of a bin on the logarithmic axis: exact up to 9, then the middle of a tenth of a decade."""
    if least < 1:
        return _ZERO
    if least < 10:
        return round(math.log10(least), 4)
    return round(math.floor(math.log10(least) * 10 + 1e-9) / 10 + 0.05, 4)


def _height(count: int, tallest: int) -> float:
    """Between a tenth and three quarters of a row."""
    return 0.1 + 0.62 * (math.log10(count) / math.log10(tallest) if tallest > 1 else 1)


def _span(measure: Measure, one: Bin) -> str:
    least, most = value_name(measure, one.least), value_name(measure, one.most)
    unit = "" if measure.timed else " iterations"
    return f"{least}{unit}" if least == most else f"{least} to {most}{unit}"
