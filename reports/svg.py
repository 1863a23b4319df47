"""Static pictures of the figures, without JavaScript and for print. The page gives the colour of text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from reports.palette import INK
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 840
"""Width of a picture in its own units; the page scales it."""


@dataclass(frozen=True)
class Axis:
    """A horizontal or vertical scale.

    Attributes:
        low: Value at the first end, in the scale's own numbers (a log axis passes logarithms).
        high: Value at the other end.
        from_px: Place of ``low``.
        to_px: Place of ``high``.
        ticks: Value and label of each tick.
    """

    low: float
    high: float
    from_px: float
    to_px: float
    ticks: Sequence[tuple[float, str]]

    def at(self, value: float) -> str:
        """Place of a value, with one decimal."""
        return (
            f"{self.from_px + (value - self.low) / (self.high - self.low) * (self.to_px - self.from_px):.1f}"
        )


def picture(height: int, label: str, *parts: str) -> str:
    """One picture with an accessible name."""
    name = escape(printable(label))
    head = f'<svg class="static" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">'
    return "\n".join([head, *parts, "</svg>"])


def grid(x: Axis, y: Axis, x_title: str, y_title: str = "") -> str:
    """Grid lines, tick labels and titles of both axes."""
    parts = []
    for value, name in x.ticks:
        parts.append(f'<path class="grid" d="M{x.at(value)} {y.from_px}V{y.to_px}"/>')
        parts.append(text(x.at(value), y.from_px + 18, name, "middle"))
    for value, name in y.ticks:
        parts.append(f'<path class="grid" d="M{x.from_px} {y.at(value)}H{x.to_px}"/>')
        parts.append(text(x.from_px - 8, float(y.at(value)) + 4, name, "end"))
    parts.append(text((x.from_px + x.to_px) / 2, y.from_px + 38, x_title, "middle"))
    if y_title:
        parts.append(text(x.from_px - 8, y.to_px - 10, y_title, "start"))
    return "\n".join(parts)


def text(x: float | str, y: float | str, value: str, anchor: str) -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(printable(value))}</text>'


def mark(x: str, y: str, diameter: float, colour: str, *, diamond: bool) -> str:
    """A dot, or a diamond around an empty middle."""
    if diamond:
        r = diameter / 2 * 1.2
        path = f"M{x} {float(y) - r:.1f}l{r:.1f} {r:.1f}l{-r:.1f} {r:.1f}l{-r:.1f} {-r:.1f}z"
        return f'<path {_paint("stroke", colour)} fill="none" stroke-width="2" d="{path}"/>'
    return f'<circle cx="{x}" cy="{y}" r="{diameter / 2:.1f}" {_paint("fill", colour)}/>'


def steps(x: Axis, y: Axis, points: Sequence[tuple[float, float]], colour: str, dash: str) -> str:
    """A line that keeps each value until the next point."""
    path = f"M{x.at(points[0][0])} {y.at(points[0][1])}"
    path += "".join(f"H{x.at(across)}V{y.at(up)}" for across, up in points[1:])
    paint = _paint("stroke", colour)
    return f'<path fill="none" {paint} stroke-width="2" stroke-dasharray="{dash}" d="{path}"/>'


def log_ticks(most: int) -> list[tuple[float, str]]:
    """Ticks at the powers of ten up to ``most``: logarithm and label."""
    return [(float(power), f"{10**power:,}") for power in range(int(math.log10(max(1, most))) + 1)]


def linear_ticks(most: float) -> list[tuple[float, str]]:
    """Up to seven round ticks from 0 to ``most``."""
    raw = max(most, 1e-9) / 6
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw)
    return [(number * step, f"{number * step:,.10g}") for number in range(int(most / step * (1 + 1e-9)) + 1)]


def _paint(attribute: str, colour: str) -> str:
    return f'class="ink-{attribute}"' if colour == INK else f'{attribute}="{colour}"'
