"""VMAs alive on the biggest anon_vmas over time, with the walks marked below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.figures.bins import Population, TimeAxis, populations, walks_by_time
from reports.figures.figure import Figure, axis_title, layout, lines, marks, seconds_axis
from reports.figures.palette import INK, OKABE_ITO
from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from reports.facts.all import Facts

_DASHES: Final = ("solid", "dash", "dot", "dashdot")
_LEAST: Final = 0.02
"""Trees that never have this share of the biggest one's VMAs are not drawn."""


def draw(avc: pa.Table, walk: pa.Table, facts: Facts, detail: float) -> Figure | None:
    """VMAs alive on the biggest anon_vmas over time, with the walks marked below."""
    first, last = facts.capture["first_ts_ns"], facts.capture["last_ts_ns"]
    if first is None or last is None:
        return None
    axis = TimeAxis.over(first, last, detail)
    found = populations(avc, axis)
    if not found:
        return None
    walks = walks_by_time(walk, axis)
    peak = found[0].peak
    trees = [tree for tree in found if tree.peak >= _LEAST * peak]
    end = axis.seconds(axis.bins)
    data = [_line(tree, place, axis) for place, tree in enumerate(trees)]
    if walks:
        data.append(_walk_marks(walks, axis))
    spec = {
        "data": data,
        "layout": layout(
            420,
            70,
            24 + 18 * -(-len(trees) // 2),
            showlegend=True,
            xaxis=seconds_axis(0, end, anchor="y2"),
            yaxis={
                "title": axis_title("VMAs on the tree"),
                "range": [0, peak * 1.05],
                "domain": [0.14, 1],
                "tickformat": ",~r",
                "nticks": 6,
            },
            yaxis2={
                "domain": [0, 0.08],
                "range": [-1, 1],
                "tickvals": [0],
                "ticktext": ["walks"],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
        ),
    }
    return Figure(
        name="population",
        finding=f"Most VMAs at once on one anon_vma: {peak:,}, on {trees[0].anon_vma:#x}.",
        title="VMAs on the biggest anon_vmas over time",
        caption=_caption(avc, found, trees, walks, axis),
        spec=spec,
        table=grid(
            "populations",
            "anon_vma:x,most at once:n,there before the capture:n,there at its end:n",
            [(tree.anon_vma, tree.peak, tree.from_before, tree.to_end) for tree in found],
        ),
    )


def _line(tree: Population, place: int, axis: TimeAxis) -> dict[str, Any]:
    points = _changes(tree.alive, axis)
    return lines(
        [across for across, _ in points],
        [up for _, up in points],
        f"anon_vma {tree.anon_vma:#x}: at most {tree.peak:,}",
        OKABE_ITO[place],
        line={"shape": "hv", "dash": _DASHES[place]},
        hovertext=[f"{tree.anon_vma:#x}: {up:,} VMAs from {across:.6f} s" for across, up in points],
    )


def _walk_marks(walks: Sequence[tuple[int, int]], axis: TimeAxis) -> dict[str, Any]:
    return marks(
        [axis.seconds(number) for number, _ in walks],
        [0] * len(walks),
        "walks",
        "line-ns-open",
        14,
        INK,
        yaxis="y2",
        showlegend=False,
        hovertext=[f"{count:,} walks from {axis.seconds(number):.6f} s" for number, count in walks],
    )


def _caption(
    avc: pa.Table,
    found: Sequence[Population],
    trees: Sequence[Population],
    walks: Sequence[tuple[int, int]],
    axis: TimeAxis,
) -> list[str]:
    known = pl.DataFrame(avc.select(["anon_vma", "evidence"]))
    unknown = known["anon_vma"].null_count()
    number = known["anon_vma"].drop_nulls().n_unique()
    begun = sum(count for _, count in walks)
    caption = [
        f"The biggest {len(trees)} of {number:,} anon_vmas; an anon_vma is known by its address, which the "
        "kernel may use again.",
        f"Lines: the most VMAs at once within each of {axis.bins} bins of {axis.width_ns / 1e6:.3g} ms; "
        f"marks below them: the bins in which {begun:,} walks began.",
        f"{sum(t.from_before for t in trees):,} of the VMAs drawn were there before the capture began and "
        f"count from its start; {sum(t.to_end for t in trees):,} were still there at its end.",
    ]
    if len(found) > len(trees):
        caption.append(f"{len(found) - len(trees)} more in the table never have 2 % of that.")
    if unknown:
        caption.append(f"{unknown:,} VMAs whose anon_vma is not known are not drawn.")
    if (known["evidence"] == "exact").any():
        caption.append(
            "A VMA that was there before the capture began and was not removed while it ran left no event: "
            "it is not counted."
        )
    return caption


def _changes(alive: Sequence[int], axis: TimeAxis) -> list[tuple[float, int]]:
    """Points of a step line: the first bin, each bin that differs from the one before, and the end."""
    points = [(axis.seconds(0), alive[0])]
    points += [(axis.seconds(n), alive[n]) for n in range(1, len(alive)) if alive[n] != alive[n - 1]]
    return [*points, (axis.seconds(axis.bins), alive[-1])]
