"""Why a strategy misses a mapping: one example each, the page's VMA at the merge beside the VMAs at the walk.

A diagram, not to scale: the VMAs that matter are as high as it takes to see them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.escape import plotly_label
from reports.figures.figure import Figure, boxes, layout, lines, marks, note
from reports.figures.palette import INK, strategy_colour
from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.facts.all import Facts
    from reports.facts.example import Example, Span

MAX_PANELS: Final = 3
_PANEL: Final = 190
_GAP: Final = 58
_BOTTOM: Final = 16
_LEAST: Final = 0.13
_LEFT, _RIGHT, _WIDE = 1.0, 6.4, 1.6
"""Where the two columns of VMAs begin, and how wide they are."""

_GREY: Final = "rgba(128,140,152,0.20)"
_EDGE: Final = "rgba(120,132,144,0.75)"


def draw(examples: Mapping[str, Example], facts: Facts) -> Figure | None:
    """One panel for each strategy that misses, up to three; None: none does, or too little is known."""
    told = [examples[name] for name in facts.strategies if name in examples][:MAX_PANELS]
    if not told:
        return None
    height = len(told) * (_PANEL + _GAP) + _BOTTOM
    whole = layout(
        height,
        16,
        0,
        xaxis={
            "range": [0, 12],
            "tickvals": [],
            "ticktext": [],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        annotations=[],
    )
    whole["margin"] |= {"b": _BOTTOM, "r": 16}
    data: list[dict[str, Any]] = []
    for place, one in enumerate(told):
        axis = f"y{place + 1 if place else ''}"
        top = 1 - (place * (_PANEL + _GAP) + _GAP) / (height - _BOTTOM)
        whole[axis.replace("y", "yaxis")] = {
            "domain": [max(0.0, top - _PANEL / (height - _BOTTOM)), top],
            "range": [0, 1],
            "tickvals": [],
            "ticktext": [],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        }
        drawn, notes = _panel(one, strategy_colour(one.strategy, facts.strategies.index(one.strategy)), facts)
        data += [trace | {"yaxis": axis} for trace in drawn]
        whole["annotations"] += [each | {"yref": axis, "xref": "x"} for each in notes]
        whole["annotations"].append(note(_title(one, facts), 0, top, yshift=26, font={"size": 13}))
    return Figure(
        name="why",
        finding=sentence(told[0], facts),
        title="One missed mapping of each strategy that misses any (not to scale)",
        caption=[sentence(one, facts) for one in told[1:]],
        spec={"data": data, "layout": whole},
        table=grid(
            "examples",
            "strategy,walk=walk_id,at s=walk_at_ns:s,address:x,its page=page:x,merged at s=merged_at_ns:s,"
            "looked up at=looked_up:x,VMA that holds it=held_by,VMAs met=met,since=cause,at s=cause_at_ns:s,"
            "by pid=cause_pid",
            [_row(one, facts) for one in told],
            "Page offsets on the tree.",
        ),
    )


def sentence(one: Example, facts: Facts) -> str:
    """The example in a few words."""
    since = ""
    if one.cause is not None and one.cause_ns is not None:
        since = f" (since {one.cause} at {facts.second(one.cause_ns)} s)"
    moved = f"; its VMA's {_displaced(one)}" if one.displaced else ""
    return f"{one.strategy} looks {one.far(one.looked.first)} the page and finds {_met(one)}{since}{moved}."


def _displaced(one: Example) -> str:
    """How page offsets and addresses go together."""
    return f"page offsets are address / 4096 {'+' if one.displaced > 0 else '-'} {abs(one.displaced):,}"


def _met(one: Example) -> str:
    if one.met is None:
        return "no VMA"
    if one.met.first <= one.page <= one.met.last:
        return "other VMAs, not the one that holds it"
    return f"a VMA of {_pages(one.met)}, not the one that holds it"


def _title(one: Example, facts: Facts) -> str:
    parts = [f"<b>{plotly_label(one.strategy)}</b> misses address {one.address:#x}"]
    if one.cause is not None and one.cause_ns is not None:
        who = "" if one.cause_pid is None else f" by pid {one.cause_pid}"
        parts.append(f" since {plotly_label(one.cause)} at {facts.second(one.cause_ns)} s{who}")
    return "".join(parts)


def _panel(one: Example, colour: str, facts: Facts) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    place = Places(one)
    page, looked = place.page, place.looked
    held = place.box(one.held_by, page)
    left_end, right_end = _LEFT + _WIDE, _RIGHT + _WIDE
    data, notes = [], []
    if one.merged_in is not None:
        whole = (place.at(one.merged_in.first, edge=True), place.at(one.merged_in.last, edge=True))
        data.append(boxes([(_LEFT, left_end, *whole)], "VMA at the merge", _GREY, edge=1.2, outline=_EDGE))
        if one.vmas > 1:
            data.append(boxes([(_RIGHT, right_end, *whole)], "other VMAs", _GREY, edge=0.6, outline=_EDGE))
        said = f"VMA of {_pages(one.merged_in)}" + (f"; {_displaced(one)}" if one.displaced else "")
        notes.append(note(said, _LEFT, whole[0], yanchor="top"))
    notes.append(
        note(
            f"at the merge, {facts.second(one.merged_ns)} s", _LEFT + _WIDE / 2, 1, xanchor="center", yshift=4
        )
    )
    notes.append(
        note(
            f"at walk {one.walk_id}, {facts.second(one.walk_ns)} s: "
            f"{one.vmas:,} VMA{'s' if one.vmas > 1 else ''} on the tree",
            _RIGHT,
            1,
            yshift=4,
        )
    )
    data.append(boxes([(_RIGHT, right_end, *held)], "VMA that holds the page", _GREY, edge=2))
    if one.met is not None and not one.met.first <= one.page <= one.met.last:
        data.append(
            boxes(
                [(_RIGHT, right_end, *place.box(one.met, looked))],
                "VMA that is met",
                _GREY,
                edge=2,
                outline=colour,
            )
        )
    dots = [_LEFT + _WIDE / 2, _RIGHT + _WIDE / 2]
    data.append(lines(dots, [page, page], "the page", INK, width=1.5, line={"dash": "dot"}))
    data.append(marks(dots, [page, page], "the page", "circle", 9, INK))
    data.append(lines([left_end, right_end], [looked, looked], "lookup", colour, width=3))
    data.append(marks([_RIGHT + _WIDE / 2], [looked], "lookup", "line-ns-open", 14, colour))
    notes.append(note("the page", (left_end + _RIGHT) / 2, page, xanchor="center", yshift=2))
    notes.append(
        note(
            f"{plotly_label(one.strategy)} looks here",
            (left_end + _RIGHT) / 2,
            looked,
            xanchor="center",
            yshift=2,
            font={"color": colour},
        )
    )
    notes.append(
        note(
            f"missed: the VMA that holds the page ({_pages(one.held_by)})",
            right_end + 0.15,
            page,
            yanchor="middle",
        )
    )
    found = (
        "no VMA here"
        if one.met is None
        else "other VMAs"
        if one.met.first <= one.page <= one.met.last
        else f"met: a VMA of {_pages(one.met)}"
    )
    notes.append(
        note(f"{found}, {one.far(one.looked.first)} the page", right_end + 0.15, looked, yanchor="middle")
    )
    return data, notes


class Places:
    """Heights in a panel, 0 to 1: linear within the VMAs that matter, at the edge for what is far away."""

    def __init__(self, one: Example) -> None:
        spans = [span for span in (one.merged_in, one.held_by) if span is not None]
        self.low = min(span.first for span in spans)
        self.high = max(span.last for span in spans)
        away = (one.looked.first > self.high) - (one.looked.first < self.low)
        self.bottom, self.top = (0.3 if away < 0 else 0.12), (0.7 if away > 0 else 0.9)
        self.page = self.at(one.page)
        self.looked = {-1: 0.08, 1: 0.92, 0: self.at(one.looked.first)}[away]
        if away == 0 and abs(self.looked - self.page) < 2 * _LEAST:
            self.page = self._apart(one.page > one.looked.first)

    def _apart(self, is_above: bool) -> float:
        """Height of the page, so far from the lookup that one sees which is above the other."""
        step = 2 * _LEAST if is_above else -2 * _LEAST
        least, most = self.bottom + _LEAST / 2, self.top - _LEAST / 2
        self.looked = min(max(self.looked, least - min(0, step)), most - max(0, step))
        return self.looked + step

    def at(self, pgoff: int, *, edge: bool = False) -> float:
        """Height of a page; ``edge``: of the end of the VMAs, if it is one."""
        share = (pgoff - self.low) / max(1, self.high - self.low)
        pad = 0 if edge else _LEAST / 2 / (self.top - self.bottom)
        return self.bottom + (self.top - self.bottom) * min(max(share, pad), 1 - pad)

    def box(self, span: Span, around: float) -> tuple[float, float]:
        """Bottom and top of a VMA, at least as high as it takes to see it."""
        low, high = self.at(span.first, edge=True), self.at(span.last, edge=True)
        if high - low < _LEAST:
            low, high = around - _LEAST / 2, around + _LEAST / 2
        return low, high


def _pages(span: Span) -> str:
    return f"{span.pages:,} page{'' if span.pages == 1 else 's'}"


def _row(one: Example, facts: Facts) -> Sequence[Any]:
    return [
        one.strategy,
        one.walk_id,
        facts.after(one.walk_ns),
        one.address,
        one.page,
        facts.after(one.merged_ns),
        one.looked.first,
        f"{one.held_by.first:#x}-{one.held_by.last:#x}",
        "none" if one.met is None else f"{one.met.first:#x}-{one.met.last:#x}",
        one.cause,
        facts.after(one.cause_ns),
        one.cause_pid,
    ]
