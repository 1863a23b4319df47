"""One anon_vma over time: VMAs as boxes of page offsets, merges, what each strategy looks up, and misses.

One panel a strategy, all with the same VMAs and merges. A lookup is a short line at the page offset that
the strategy asks the tree for (`full` asks for all: an upright line); a missed mapping is a cross at the
page, tied to the place where the strategy looked. Lookups outside the panel stand as triangles at its edge.
The dashed line is the event since which mappings are missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.escape import plotly_label
from reports.figures.bins_space import Scene, scene
from reports.figures.figure import Figure, axis_title, boxes, layout, lines, marks, note, seconds_axis
from reports.figures.palette import INK, strategy_colour
from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.all import Facts

MAX_PANELS: Final = 6
_PANEL: Final = 150
_GAP: Final = 46
_TOP: Final = 58
_BOTTOM: Final = 54
_ONE: Final = "rgba(128,140,152,0.20)"
_MANY: Final = "rgba(128,140,152,0.36)"
_EDGE: Final = "rgba(120,132,144,0.75)"


def draw(tables: Mapping[str, pa.Table], facts: Facts, detail: float) -> Figure | None:
    """The anon_vma with most missed mappings, else most loops; None: nothing is known of any."""
    origin, last = facts.capture["first_ts_ns"], facts.capture["last_ts_ns"]
    if origin is None or last is None:
        return None
    seen = scene(tables, last, detail)
    if seen is None:
        return None
    names = [name for name in facts.strategies if name in seen.lookups][:MAX_PANELS]
    view = _View(seen, origin, misses="is known to miss" if facts.counted["bounded"] else "misses")
    data = [trace for place, name in enumerate(names) for trace in _panel(view, name, place)]
    rows = [_row(view, name) for name in names]
    return Figure(
        name="space",
        finding=_finding(view, names),
        title=f"Address space of anon_vma {seen.anon_vma:#x} over time, in page offsets from {seen.low:#x}",
        caption=_caption(view, facts, names),
        spec={"data": data, "layout": _layout(view, names)},
        table=grid(
            "space",
            "strategy,mappings missed here=missed:bad,first at s=first_at_ns:s,its page=page,"
            "looked up at=looked_up,passed by since=since:wide",
            rows,
        ),
    )


def _finding(view: _View, names: Sequence[str]) -> str:
    seen = view.seen
    missing = [f"{name} misses {seen.missed[name]:,}" for name in names if seen.missed[name]]
    if not missing:
        return f"No strategy {view.misses} a mapping of this anon_vma."
    clean = [name for name in names if not seen.missed[name]]
    rest = f"; {', '.join(clean)} none" if clean else ""
    return f"{', '.join(missing)} mappings of this anon_vma{rest}."


class _View:
    """A scene with the numbers of its axes: seconds after the first event, pages after the lowest."""

    def __init__(self, seen: Scene, origin: int, misses: str) -> None:
        self.seen = seen
        self.misses = misses
        self.origin = origin
        left, right = self.seconds(seen.start_ns), self.seconds(seen.end_ns)
        pad = max((right - left) * 0.02, 1e-6)
        self.left, self.right = max(0.0, left - pad), right + pad
        self.pages = seen.high - seen.low + 1
        self.margin = max(0.6, self.pages * 0.09)

    def seconds(self, ts_ns: int) -> float:
        return round((ts_ns - self.origin) / 1e9, 6)

    def page(self, pgoff: int) -> float:
        """Middle of a page, or the edge of the panel on its side."""
        return min(max(pgoff - self.seen.low + 0.5, -self.margin), self.pages + self.margin)

    def outside(self, pgoff: int) -> int:
        """-1: below the panel, 1: above it, 0: in it."""
        return (pgoff > self.seen.high) - (pgoff < self.seen.low)

    def place(self, pgoff: int) -> str:
        """A page offset in words."""
        return f"{pgoff:#x} ({pgoff - self.seen.low:+,})"

    def title(self, name: str) -> str:
        missed = self.seen.missed[name]
        cause = self.seen.causes.get(name)
        if not missed:
            return f"<b>{plotly_label(name)}</b> {self.misses} none here"
        why = "" if cause is None else f", since {plotly_label(self.since(cause))}"
        return f"<b>{plotly_label(name)}</b> misses {missed:,} here{why}"

    def since(self, miss: Mapping[str, Any]) -> str:
        """What made a mapping be missed, in words."""
        if miss["cause_event"] is None and miss["cause_ts_ns"] is None:
            return "not known"
        when = f" at {self.seconds(miss['cause_ts_ns']):.3f} s by pid {miss['cause_pid']}"
        return f"{miss['cause_event'] or 'a change outside the system calls'}{when}"


def _panel(view: _View, name: str, place: int) -> list[dict[str, Any]]:
    seen, colour, label = view.seen, strategy_colour(name, place), plotly_label(name)
    axes: dict[str, Any] = {"yaxis": f"y{place + 1 if place else ''}"}
    if place:
        axes["showlegend"] = False
    data = []
    # those that come one after the other in no time have no outline: it would be all one sees of them
    one = [box for box in seen.boxes if box["n"] == 1]
    briefly = [box for box in seen.boxes if box["n"] > 1 and not box["many"]]
    many = [box for box in seen.boxes if box["many"]]
    for own, words, fill, edge in (
        (one, "one VMA", _ONE, 1.0),
        (briefly, "VMAs in turn", _ONE, 0.0),
        (many, "VMAs side by side", _MANY, 0.4),
    ):
        if own:
            hidden = {"showlegend": False} if own is briefly else {}
            data.append(_vmas(view, own, words, fill, edge) | axes | hidden)
    data.append(
        marks(
            [view.seconds(one["ts"]) for one in seen.merges],
            [view.page(one["page"]) for one in seen.merges],
            "merge by KSM",
            "circle",
            4,
            INK,
            hovertext=[f"{_many(one, 'merge')}, page {view.place(one['page'])}" for one in seen.merges],
            **axes,
        )
    )
    cause = seen.causes.get(name)
    if cause is not None and seen.start_ns <= cause["cause_ts_ns"] <= seen.end_ns:
        at = view.seconds(cause["cause_ts_ns"])
        data.append(
            lines(
                [at, at],
                [-view.margin * 1.2, view.pages + view.margin * 1.2],
                "missed since",
                INK,
                width=1.5,
                **{**axes, "showlegend": False},
                line={"dash": "dash"},
            )
        )
    data += _lookups(view, name, label, colour, axes)
    if seen.misses[name]:
        data += _misses(view, seen.misses[name], label, colour, axes)
    return data


def _vmas(
    view: _View, own: Sequence[Mapping[str, Any]], words: str, fill: str, edge: float
) -> dict[str, Any]:
    spans = [
        (
            view.seconds(box["born"]),
            view.seconds(box["died"]),
            view.page(box["first"]) - 0.5,
            view.page(box["last"]) + 0.5,
        )
        for box in own
    ]
    hover = [_box_words(view, box) for box in own]
    return boxes(spans, words, fill, edge=edge, outline=_EDGE, hovertext=hover)


def _lookups(
    view: _View, name: str, label: str, colour: str, axes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    looked = view.seen.lookups[name]
    words = [f"{label}: {_many(one, 'lookup')} of {_range(view, one)}" for one in looked]
    if looked and _whole(view, looked[0]):
        x = [value for one in looked for value in (view.seconds(one["ts"]),) * 2 + (None,)]
        y = [-view.margin, view.pages + view.margin, None] * len(looked)
        hover = [text for text in words for _ in range(3)]
        return [
            lines(
                x,
                y,
                "lookup of the whole tree",
                colour,
                hovertext=hover,
                **{**axes, "showlegend": True},
            )
        ]
    drawn = []
    for side, symbol in ((0, "line-ew-open"), (1, "triangle-up"), (-1, "triangle-down")):
        own = [place for place, one in enumerate(looked) if view.outside(one["first"]) == side]
        if own:
            drawn.append(
                marks(
                    [view.seconds(looked[place]["ts"]) for place in own],
                    [view.page(looked[place]["first"]) for place in own],
                    f"lookup by {label}" if side == 0 else f"lookup by {label}, outside the picture",
                    symbol,
                    13 if side == 0 else 9,
                    colour,
                    hovertext=[words[place] for place in own],
                    **{**axes, "showlegend": True},
                )
            )
    return drawn


def _misses(
    view: _View, misses: Sequence[Mapping[str, Any]], label: str, colour: str, axes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    x = [value for one in misses for value in (view.seconds(one["ts"]),) * 2 + (None,)]
    y = [value for one in misses for value in (view.page(one["first"]), view.page(one["page"]), None)]
    crosses = marks(
        [view.seconds(one["ts"]) for one in misses],
        [view.page(one["page"]) for one in misses],
        f"missed by {label}",
        "x-thin-open",
        8,
        INK,
        hovertext=[_miss_words(view, one, label) for one in misses],
        **{**axes, "showlegend": True},
    )
    return [lines(x, y, "tie", colour, width=1.2, **{**axes, "showlegend": False}), crosses]


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


def _whole(view: _View, one: Mapping[str, Any]) -> bool:
    return bool(one["last"] - one["first"] > 4 * view.pages)


def _range(view: _View, one: Mapping[str, Any]) -> str:
    if _whole(view, one):
        return "the whole tree"
    if one["first"] == one["last"]:
        return f"page offset {view.place(one['first'])}"
    return f"page offsets {view.place(one['first'])} to {view.place(one['last'])}"


def _layout(view: _View, names: Sequence[str]) -> dict[str, Any]:
    height = _TOP + len(names) * (_PANEL + _GAP) + _BOTTOM
    area = height - _TOP - _BOTTOM
    whole = layout(
        height,
        70,
        _TOP,
        showlegend=True,
        xaxis=seconds_axis(view.left, view.right, anchor=f"y{len(names) if len(names) > 1 else ''}"),
        annotations=[],
    )
    for place, name in enumerate(names):
        axis = f"y{place + 1 if place else ''}"
        top = 1 - (place * (_PANEL + _GAP) + _GAP) / area
        whole[axis.replace("y", "yaxis")] = {
            "domain": [max(0.0, top - _PANEL / area), top],
            "range": [-view.margin * 1.2, view.pages + view.margin * 1.2],
            "title": axis_title("pages"),
            "zeroline": False,
            "tickformat": ",~r",
            "nticks": 5,
        }
        whole["annotations"].append(note(view.title(name), 0, top, yshift=2))
        away = _away(view, name)
        if away:
            whole["annotations"].append(
                note(away, 1, top, xanchor="right", yshift=2, font={"color": strategy_colour(name, place)})
            )
    return whole


def _away(view: _View, name: str) -> str:
    """Where a strategy looks that looks outside the panel."""
    outside = [one["first"] for one in view.seen.lookups[name] if view.outside(one["first"])]
    if not outside or _whole(view, view.seen.lookups[name][0]):
        return ""
    nearest = min(outside, key=lambda pgoff: min(abs(pgoff - view.seen.low), abs(pgoff - view.seen.high)))
    side = "below" if view.outside(nearest) < 0 else "above"
    distance = view.seen.low - nearest if side == "below" else nearest - view.seen.high
    return f"{'▼' if side == 'below' else '▲'} looks {distance:,} pages or more {side}"


def _caption(view: _View, facts: Facts, names: Sequence[str]) -> list[str]:
    seen = view.seen
    misses = sum(seen.missed[name] for name in names)
    drawn = sum(len(seen.lookups[name]) for name in names)
    caption = [
        "The anon_vma with most missed mappings. A cross is a missed mapping at its page, tied to where the "
        "strategy looked for it; the dashed line is the event since which mappings are missed."
        if misses
        else "The anon_vma with most loops.",
        f"{seen.vmas:,} lives of VMAs are shown as {len(seen.boxes):,} boxes, "
        f"{sum(one['n'] for one in seen.merges):,} merges as {len(seen.merges):,} dots, "
        f"{seen.loops:,} lookups as {drawn:,} lines, {misses:,} missed mappings as "
        f"{sum(len(seen.misses[n]) for n in names):,} crosses: what lies close together is one.",
    ]
    left_out = [name for name in facts.strategies if name in seen.lookups and name not in names]
    if left_out:
        caption.append(f"{len(left_out)} more strategies are not drawn.")
    return caption


def _row(view: _View, name: str) -> list[Any]:
    missed = view.seen.missed[name]
    misses = view.seen.misses[name]
    if not misses:
        return [name, missed, None, None, None, None]
    one = misses[0]
    page, looked = (f"{one[key] - view.seen.low:+,}" for key in ("page", "first"))
    return [name, missed, one["ts"] - view.origin, page, looked, view.since(one)]
