"""Scales of the figures: where a value stands, and round values to mark on an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    def at(self, value: float) -> float:
        """Place of a value."""
        return self.from_px + (value - self.low) / (self.high - self.low) * (self.to_px - self.from_px)


def ticks_between(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """About ``most`` round values from ``low`` to ``high``, and their labels."""
    raw = max(high - low, 1e-9) / max(1, most)
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(number * step, f"{number * step:,.{digits}f}") for number in range(first, last + 1)]


def count_ticks(least: int, most: int) -> list[tuple[float, str]]:
    """Powers of ten from ``least`` to ``most`` on a logarithmic axis: logarithm and label."""
    powers = range(math.floor(math.log10(max(1, least))), math.floor(math.log10(max(1, most))) + 1)
    return [(float(power), f"{10**power:,}") for power in powers]


def time_ticks(least_ns: int, most_ns: int) -> list[tuple[float, str]]:
    """Powers of ten of ns on a logarithmic axis: logarithm, and label with the unit that fits."""
    first, last = math.floor(math.log10(max(1, least_ns))), math.floor(math.log10(max(1, most_ns)))
    return [(float(power), time_name(10**power)) for power in range(first, last + 1)]


def time_name(ns: float) -> str:
    """A duration with three digits at most and the unit that fits: ``1 us``, ``20.5 ms``, ``3 s``."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= scale * 0.9995:
            value = ns / scale
            return f"{value:,.0f} {unit}" if value >= 99.95 else f"{value:.3g} {unit}"
    return f"{ns:.0f} ns"
