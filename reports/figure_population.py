"""VMAs alive on the biggest anon_vmas over time, with the walks marked below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports import svg
from reports.bins import Population, TimeAxis, populations, walks_by_time
from reports.figure import Figure
from reports.palette import INK, OKABE_ITO

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from reports.facts import Facts

_SECONDS: Final = "seconds after the first event of the capture"
_ALIVE: Final = "VMAs alive"
_DASHES: Final = (("solid", ""), ("dash", "9 5"), ("dot", "2 4"), ("dashdot", "9 4 2 4"))


def draw(avc: pa.Table, walk: pa.Table, facts: Facts) -> Figure | None:
    """VMAs alive on the biggest anon_vmas over time, with the walks marked below."""
    first, last = facts.capture["first_ts_ns"], facts.capture["last_ts_ns"]
    if first is None or last is None:
        return None
    axis = TimeAxis.over(first, last)
    trees = populations(avc, axis)
    if not trees:
        return None
    walks = walks_by_time(walk, axis)
    peak = trees[0].peak
    end = axis.seconds(axis.bins)
    x = svg.Axis(0, end, 70, svg.WIDTH - 20, svg.linear_ticks(end))
    y = svg.Axis(0, peak * 1.05, 250, 70, svg.linear_ticks(peak))
    lines, parts = [], [svg.grid(x, y, _SECONDS, _ALIVE)]
    for place, tree in enumerate(trees):
        dash, pattern = _DASHES[place]
        points = _changes(tree.alive, axis)
        label = f"anon_vma {tree.anon_vma:#x}: peak {tree.peak:,}"
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": [across for across, _ in points],
                "y": [up for _, up in points],
                "line": {"shape": "hv", "color": OKABE_ITO[place], "dash": dash, "width": 2},
                "hovertext": [
                    f"{tree.anon_vma:#x}: {up:,} alive from {across:.6f} s" for across, up in points
                ],
                "hoverinfo": "text",
            }
        )
        parts.append(svg.steps(x, y, points, OKABE_ITO[place], pattern))
        key = 20 + 16 * (place // 2), 70 + 400 * (place % 2)
        parts.append(
            f'<path d="M{key[1]} {key[0] - 4}h30" fill="none" stroke="{OKABE_ITO[place]}" stroke-width="2" '
            f'stroke-dasharray="{pattern}"/>'
        )
        parts.append(svg.text(key[1] + 36, key[0], label, "start"))
    if walks:
        lines.append(_walk_marks(walks, axis))
        for number, _ in walks:
            parts.append(f'<path class="ink-stroke" d="M{x.at(axis.seconds(number))} 300v12"/>')
        parts.append(svg.text(62, 310, "walks", "end"))
    alt = f"Most VMAs alive at once on one anon_vma: {peak:,}, on {trees[0].anon_vma:#x}."
    return Figure(
        name="population",
        title="VMAs alive on the biggest anon_vmas",
        alt=alt,
        caption=_caption(avc, trees, walks, axis),
        spec={"data": lines, "layout": _layout(end, peak)},
        picture=svg.picture(320, alt, *parts),
        header="anon_vma,most alive at once:n,there before the capture:n,there at its end:n",
        rows=[(f"{t.anon_vma:#x}", str(t.peak), str(t.from_before), str(t.to_end)) for t in trees],
    )


def _layout(end: float, peak: int) -> dict[str, Any]:
    return {
        "height": 400,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 60},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": _SECONDS, "standoff": 8}, "range": [0, end], "anchor": "y2"},
        "yaxis": {
            "title": {"text": _ALIVE, "standoff": 8},
            "automargin": True,
            "range": [0, peak * 1.05],
            "domain": [0.14, 1],
            "tickformat": ",~r",
        },
        "yaxis2": {
            "domain": [0, 0.08],
            "range": [-1, 1],
            "tickvals": [0],
            "ticktext": ["walks"],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
    }


def _walk_marks(walks: Sequence[tuple[int, int]], axis: TimeAxis) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "walks",
        "showlegend": False,
        "xaxis": "x",
        "yaxis": "y2",
        "x": [axis.seconds(number) for number, _ in walks],
        "y": [0] * len(walks),
        "hovertext": [f"{count:,} walks from {axis.seconds(number):.6f} s" for number, count in walks],
        "hoverinfo": "text",
        "marker": {"symbol": "line-ns-open", "size": 12, "color": INK, "line": {"width": 1.5}},
    }


def _caption(
    avc: pa.Table, trees: Sequence[Population], walks: Sequence[tuple[int, int]], axis: TimeAxis
) -> list[str]:
    unknown = avc["anon_vma"].null_count
    number = len(avc["anon_vma"].unique()) - bool(unknown)
    begun = sum(count for _, count in walks)
    caption = [
        f"The {len(trees)} biggest of {number:,} anon_vmas; an anon_vma is known by its address, which the "
        "kernel may use again.",
        f"The lines show the most intervals alive at once within each of {axis.bins} bins of "
        f"{axis.width_ns / 1e6:.6g} ms, the marks below them the bins in which {begun:,} walks began.",
        f"{sum(t.from_before for t in trees):,} of the intervals drawn were there before the capture began "
        f"and count from its start; {sum(t.to_end for t in trees):,} were still there at its end.",
    ]
    if unknown:
        caption.append(f"{unknown:,} intervals whose anon_vma is not known are not drawn.")
    if "exact" in avc["evidence"].unique().to_pylist():
        caption.append(
            "An interval that was there before the capture began and was not removed while it ran left no "
            "event: it is not counted."
        )
    return caption


def _changes(alive: Sequence[int], axis: TimeAxis) -> list[tuple[float, int]]:
    """Points of a step line: the first bin, each bin that differs from the one before, and the end."""
    points = [(axis.seconds(0), alive[0])]
    points += [(axis.seconds(n), alive[n]) for n in range(1, len(alive)) if alive[n] != alive[n - 1]]
    return [*points, (axis.seconds(axis.bins), alive[-1])]
