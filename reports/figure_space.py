"""One anon_vma over time: VMAs as boxes of page offsets, merges, what each strategy looks up, and misses.

One panel a strategy, all with the same VMAs and merges. A lookup is a short line at the page offset that
the strategy asks the tree for (`full` asks for all: an upright line); a missed mapping is a cross at the
page, tied to the place where the strategy looked. Where that is outside the panel, the tie ends at the
panel's edge. About 370 lines: the same picture twice, for plotly.js and as SVG, from one view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports import svg
from reports.bins_space import Scene, scene
from reports.escape import plotly_label
from reports.figure import Figure
from reports.palette import INK, strategy_colour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts import Facts

MAX_PANELS: Final = 6
_PANEL: Final = 170
_GAP: Final = 40
_TOP: Final = 64
_ONE: Final = "rgba(128,140,152,0.16)"
_MANY: Final = "rgba(128,140,152,0.42)"
_EDGE: Final = "rgba(120,132,144,0.8)"


def draw(tables: Mapping[str, pa.Table], facts: Facts) -> Figure | None:
    """The anon_vma with most missed mappings, else most loops; None: nothing is known of any."""
    origin, last = facts.capture["first_ts_ns"], facts.capture["last_ts_ns"]
    if origin is None or last is None:
        return None
    seen = scene(tables, last)
    if seen is None:
        return None
    names = [name for name in facts.strategies if name in seen.lookups][:MAX_PANELS]
    view = _View(seen, origin)
    traces, parts = [], _key()
    for place, name in enumerate(names):
        traces += _traces(view, name, place)
        parts += _panel(view, name, place, bottom=place == len(names) - 1)
    height = _TOP + len(names) * (_PANEL + _GAP)
    worst = max(names, key=lambda name: seen.missed[name])
    missed = seen.missed[worst]
    alt = (
        f"{worst} misses {missed:,} mappings on this anon_vma." if missed else "No strategy misses a mapping."
    )
    return Figure(
        name="space",
        title=f"Address space of anon_vma {seen.anon_vma:#x} over time",
        alt=alt,
        caption=_caption(view, facts, names),
        spec={"data": traces, "layout": _layout(view, names, height)},
        picture=svg.picture(height + 30, alt, *parts),
        header="strategy,mappings missed here:n,first at s:n,page:n,looked up at:n,VMA since",
        rows=[_row(view, name) for name in names],
    )


class _View:
    """A scene with the numbers of its axes: seconds after the first event, pages after the lowest."""

    def __init__(self, seen: Scene, origin: int) -> None:
        self.seen = seen
        self.origin = origin
        self.left, self.right = self.seconds(seen.start_ns), self.seconds(seen.end_ns)
        pad = max((self.right - self.left) * 0.02, 1e-6)
        self.left, self.right = max(0.0, self.left - pad), self.right + pad
        self.pages = seen.high - seen.low + 1
        self.margin = max(0.5, self.pages * 0.04)

    def seconds(self, ts_ns: int) -> float:
        return round((ts_ns - self.origin) / 1e9, 6)

    def page(self, pgoff: int) -> float:
        """Middle of a page, or the edge of the panel on its side."""
        return min(max(pgoff - self.seen.low + 0.5, -self.margin), self.pages + self.margin)

    def place(self, pgoff: int) -> str:
        """A page offset in words."""
        return f"{pgoff:#x} ({pgoff - self.seen.low:+,})"

    def title(self, name: str) -> str:
        missed = self.seen.missed[name]
        cause = self.seen.causes.get(name)
        why = "" if cause is None else f", first cause: {self.since(cause)}"
        return f"{name}: {f'misses {missed:,} mappings here{why}' if missed else 'misses none here'}"

    def since(self, miss: Mapping[str, Any]) -> str:
        """What made a mapping be missed, in words."""
        if miss["cause_event"] is None and miss["cause_ts_ns"] is None:
            return "not known"
        when = f" at {self.seconds(miss['cause_ts_ns']):.6f} s by pid {miss['cause_pid']}"
        return f"{miss['cause_event'] or 'a change outside the system calls'}{when}"


def _traces(view: _View, name: str, place: int) -> list[dict[str, Any]]:
    seen, colour = view.seen, strategy_colour(name, place)
    axes: dict[str, Any] = {"xaxis": "x", "yaxis": f"y{place + 1 if place else ''}", "hoverinfo": "text"}
    first = place == 0
    traces: list[dict[str, Any]] = []
    for many, fill in ((False, _ONE), (True, _MANY)):
        boxes = [box for box in seen.boxes if (box["n"] > 1) == many]
        if boxes:
            traces.append(_boxes(view, boxes, fill, many=many) | axes | {"showlegend": first})
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "VMAs",
            "showlegend": False,
            "x": [view.seconds(box["born"]) for box in seen.boxes],
            "y": [(view.page(box["first"]) + view.page(box["last"])) / 2 for box in seen.boxes],
            "hovertext": [_box_words(view, box) for box in seen.boxes],
            "marker": {"size": 8, "opacity": 0, "color": INK},
        }
        | axes
    )
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "merge by KSM",
            "legendgroup": "merge",
            "showlegend": first,
            "x": [view.seconds(one["ts"]) for one in seen.merges],
            "y": [view.page(one["page"]) for one in seen.merges],
            "hovertext": [f"{_many(one, 'merge')}, page {view.place(one['page'])}" for one in seen.merges],
            "marker": {"symbol": "circle", "size": 4, "color": INK},
        }
        | axes
    )
    looked = seen.lookups[name]
    label = plotly_label(name)
    hover = [f"{label}: {_many(one, 'lookup')} of {_range(view, one)}" for one in looked]
    if looked and looked[0]["last"] - looked[0]["first"] > 4 * view.pages:
        x = [value for one in looked for value in (view.seconds(one["ts"]),) * 2 + (None,)]
        y = [-view.margin, view.pages + view.margin, None] * len(looked)
        shape: dict[str, Any] = {"mode": "lines", "line": {"color": colour, "width": 2}}
        hover = [text for text in hover for _ in range(3)]
    else:
        x = [view.seconds(one["ts"]) for one in looked]
        y = [view.page(one["first"]) for one in looked]
        shape = {
            "mode": "markers",
            "marker": {"symbol": "line-ew-open", "size": 11, "color": colour, "line": {"width": 2}},
        }
    traces.append(
        {"type": "scatter", "name": f"lookup by {label}", "x": x, "y": y, "hovertext": hover} | shape | axes
    )
    misses = seen.misses[name]
    if misses:
        traces += _ties(view, misses, label, colour, axes)
    return traces


def _boxes(view: _View, boxes: Sequence[Mapping[str, Any]], fill: str, *, many: bool) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    for box in boxes:
        born, died = view.seconds(box["born"]), view.seconds(box["died"])
        low, high = view.page(box["first"]) - 0.5, view.page(box["last"]) + 0.5
        x += [born, died, died, born, born, None]
        y += [low, low, high, high, low, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "several VMAs" if many else "one VMA",
        "legendgroup": fill,
        "x": x,
        "y": y,
        "fill": "toself",
        "fillcolor": fill,
        "hoveron": "points",
        "line": {"color": _EDGE, "width": 0.5 if many else 1},
    }


def _ties(
    view: _View, misses: Sequence[Mapping[str, Any]], label: str, colour: str, axes: dict[str, Any]
) -> list[dict[str, Any]]:
    x = [value for one in misses for value in (view.seconds(one["ts"]),) * 2 + (None,)]
    y = [value for one in misses for value in (view.page(one["first"]), view.page(one["page"]), None)]
    tie: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": "tie",
        "showlegend": False,
        "x": x,
        "y": y,
    }
    cross: dict[str, Any] = {
        "type": "scatter",
        "mode": "markers",
        "name": f"missed by {label}",
        "x": [view.seconds(one["ts"]) for one in misses],
        "y": [view.page(one["page"]) for one in misses],
        "hovertext": [_miss_words(view, one, label) for one in misses],
        "marker": {"symbol": "x-thin-open", "size": 9, "color": INK, "line": {"width": 2}},
    }
    return [tie | axes | {"hoverinfo": "skip", "line": {"color": colour, "width": 1}}, cross | axes]


def _miss_words(view: _View, one: Mapping[str, Any], label: str) -> str:
    more = f"<br>and {one['n'] - 1:,} more about here" if one["n"] > 1 else ""
    return (
        f"{label} misses address {one['address']:#x} in walk {one['walk_id']} "
        f"at {view.seconds(one['ts']):.6f} s"
        f"<br>page offset {view.place(one['page'])}, looked up at {view.place(one['first'])}"
        f"<br>its VMA {one['vm_start']:#x}-{one['vm_end']:#x} is passed by since<br>"
        f"{plotly_label(view.since(one))}{more}"
    )


def _box_words(view: _View, box: Mapping[str, Any]) -> str:
    made = "" if box["cause"] is None else f", made by {plotly_label(box['cause'])}"
    return (
        f"{box['n']:,} VMA{'s' if box['n'] > 1 else ''}{made}: pages {box['first'] - view.seen.low:+,} to "
        f"{box['last'] - view.seen.low:+,}, {view.seconds(box['born']):.6f} to "
        f"{view.seconds(box['died']):.6f} s"
    )


def _many(one: Mapping[str, Any], word: str) -> str:
    return f"{one['n']:,} {word}{'s' if one['n'] > 1 else ''}"


def _range(view: _View, one: Mapping[str, Any]) -> str:
    if one["last"] - one["first"] > 4 * view.pages:
        return "the whole tree"
    if one["first"] == one["last"]:
        return f"page offset {view.place(one['first'])}"
    return f"page offsets {view.place(one['first'])} to {view.place(one['last'])}"


def _layout(view: _View, names: Sequence[str], height: int) -> dict[str, Any]:
    area = height - _TOP
    layout: dict[str, Any] = {
        "height": height + 30,
        "margin": {"l": 70, "r": 20, "t": _TOP, "b": 50},
        "showlegend": True,
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1 + 24 / area, "yanchor": "bottom"},
        "xaxis": {
            "title": {"text": _SECONDS, "standoff": 8},
            "range": [view.left, view.right],
            "anchor": f"y{len(names) if len(names) > 1 else ''}",
            "zeroline": False,
        },
        "annotations": [],
    }
    for place, name in enumerate(names):
        top = 1 - (place * (_PANEL + _GAP) + _GAP / 2) / area
        layout[f"yaxis{place + 1 if place else ''}"] = {
            "domain": [max(0.0, top - _PANEL / area), top],
            "range": [-view.margin * 1.2, view.pages + view.margin * 1.2],
            "title": {"text": "pages", "standoff": 4},
            "zeroline": False,
            "tickformat": ",~r",
            "nticks": 5,
        }
        layout["annotations"].append(
            {
                "text": plotly_label(view.title(name)),
                "xref": "paper",
                "yref": "paper",
                "x": 0,
                "y": top,
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
            }
        )
    return layout


_SECONDS: Final = "seconds after the first event of the capture"


def _key() -> list[str]:
    """The legend of the static picture."""
    return [
        f'<path d="M70 14h24v14h-24z" fill="{_ONE}" stroke="{_EDGE}"/>',
        svg.text(100, 26, "one VMA", "start"),
        f'<path d="M175 14h24v14h-24z" fill="{_MANY}" stroke="{_EDGE}" stroke-width="0.5"/>',
        svg.text(205, 26, "several VMAs", "start"),
        '<circle cx="312" cy="21" r="2" class="ink-fill"/>',
        svg.text(320, 26, "merge by KSM", "start"),
        '<path class="ink-stroke" stroke-width="2" d="M428 21h12"/>',
        svg.text(446, 26, "lookup", "start"),
        _cross(508.0, 21.0),
        svg.text(518, 26, "missed mapping, tied to where it was looked for", "start"),
    ]


def _panel(view: _View, name: str, place: int, *, bottom: bool) -> list[str]:
    seen, colour = view.seen, strategy_colour(name, place)
    top = _TOP + place * (_PANEL + _GAP) - 10
    x_ticks = [(v, t) for v, t in svg.linear_ticks(view.right) if v >= view.left]
    x = svg.Axis(view.left, view.right, 70, svg.WIDTH - 20, x_ticks if bottom else ())
    y = svg.Axis(
        -view.margin * 1.2, view.pages + view.margin * 1.2, top + _PANEL, top, svg.linear_ticks(view.pages)
    )
    parts = [svg.grid(x, y, _SECONDS if bottom else ""), svg.text(70, top - 6, view.title(name), "start")]
    for many, fill in ((False, _ONE), (True, _MANY)):
        path = "".join(_outline(view, x, y, box) for box in seen.boxes if (box["n"] > 1) == many)
        if path:
            width = 0.5 if many else 1
            parts.append(f'<path d="{path}" fill="{fill}" stroke="{_EDGE}" stroke-width="{width}"/>')
    dots = "".join(
        f"M{x.at(view.seconds(one['ts']))} {y.at(view.page(one['page']))}h.01" for one in seen.merges
    )
    parts.append(f'<path class="ink-stroke" stroke-width="3.5" stroke-linecap="round" d="{dots}"/>')
    looked = seen.lookups[name]
    if looked and looked[0]["last"] - looked[0]["first"] > 4 * view.pages:
        lines = "".join(f"M{x.at(view.seconds(one['ts']))} {y.from_px}V{y.to_px}" for one in looked)
        parts.append(f'<path stroke="{colour}" fill="none" d="{lines}"/>')
    else:
        lines = "".join(
            f"M{float(x.at(view.seconds(one['ts']))) - 5.5:.1f} {y.at(view.page(one['first']))}h11"
            for one in looked
        )
        parts.append(f'<path stroke="{colour}" stroke-width="2" fill="none" d="{lines}"/>')
    ties = "".join(
        f"M{x.at(view.seconds(one['ts']))} {y.at(view.page(one['first']))}V{y.at(view.page(one['page']))}"
        for one in seen.misses[name]
    )
    parts.append(f'<path stroke="{colour}" fill="none" d="{ties}"/>')
    parts += [
        _cross(float(x.at(view.seconds(one["ts"]))), float(y.at(view.page(one["page"]))))
        for one in seen.misses[name]
    ]
    return parts


def _outline(view: _View, x: svg.Axis, y: svg.Axis, box: Mapping[str, Any]) -> str:
    left, right = x.at(view.seconds(box["born"])), x.at(view.seconds(box["died"]))
    low, high = y.at(view.page(box["first"]) - 0.5), y.at(view.page(box["last"]) + 0.5)
    return f"M{left} {low}H{right}V{high}H{left}z"


def _cross(x: float, y: float) -> str:
    return f'<path class="ink-stroke" stroke-width="1.5" d="M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"/>'


def _caption(view: _View, facts: Facts, names: Sequence[str]) -> list[str]:
    seen = view.seen
    misses = sum(seen.missed[name] for name in names)
    drawn = sum(len(seen.lookups[name]) for name in names)
    caption = [
        f"The anon_vma with most {'missed mappings' if misses else 'loops'}. Pages: page offset on its tree "
        f"minus {seen.low:#x}. A lookup outside the panel stands at its edge; what made a mapping be missed "
        "is told at its cross.",
        f"{seen.vmas:,} lives of VMAs are shown as {len(seen.boxes):,} boxes, "
        f"{sum(one['n'] for one in seen.merges):,} merges as {len(seen.merges):,} dots, "
        f"{seen.loops:,} lookups as {drawn:,} lines, {misses:,} missed mappings as "
        f"{sum(len(seen.misses[n]) for n in names):,} crosses: what lies close together is one.",
    ]
    left_out = [name for name in facts.strategies if name in seen.lookups and name not in names]
    if left_out:
        caption.append(f"{len(left_out)} more strategies are not drawn.")
    return caption


def _row(view: _View, name: str) -> list[str]:
    missed = view.seen.missed[name]
    misses = view.seen.misses[name]
    if not misses:
        return [name, str(missed), "-", "-", "-", "-"]
    one = misses[0]
    page, looked = (f"{one[key] - view.seen.low:+,}" for key in ("page", "first"))
    return [name, str(missed), f"{view.seconds(one['ts']):.6f}", page, looked, view.since(one)]
