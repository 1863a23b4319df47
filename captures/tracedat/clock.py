"""Time stamps of a trace.dat -> ns: the conversion that its options ask for, and what a clock is good for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from captures.tracedat import constants as c

if TYPE_CHECKING:
    from captures.ringbuf import Longs, Times
    from captures.tracedat.container import Container

MAX_NS: Final = (1 << 63) - 1


@dataclass(frozen=True)
class TimeConversion:
    """How time stamps become ns: ``(ts * mult >> shift) + offset``.

    Attributes:
        mult: Factor; 1: none.
        shift: Right shift of the 96-bit product.
        offset: ns to add at the end.
        is_tsc: Whether the capture carries the conversion of cycles.
    """

    mult: int = 1
    shift: int = 0
    offset: int = 0
    is_tsc: bool = False

    @classmethod
    def of(cls, container: Container, ts2secs: int | None = None) -> TimeConversion:
        """Read the options TSC2NSEC, OFFSET (ns) and DATE (us).

        Args:
            container: The file.
            ts2secs: Ticks a second, in place of TSC2NSEC.

        Raises:
            CorruptError: A value that cannot be right.
        """
        offset = _number(container, c.OFFSET) + 1000 * _number(container, c.DATE)
        if abs(offset) > MAX_NS:
            offset_at = container.option_cursor(b"")
            raise offset_at.corrupt("the time offset is too large", expected="64 bits", found=str(offset))
        if ts2secs is not None:
            # The largest shift that leaves the factor 32 bits.
            shift = 32 - (10**9 // ts2secs).bit_length()
            return cls((10**9 << shift) // ts2secs, shift, offset, is_tsc=True)
        contents = container.options.get(c.TSC2NSEC)
        if not contents:
            return cls(offset=offset)
        option = container.option_cursor(contents[-1])
        mult = option.u32("the factor of the time conversion")
        shift = option.u32("the shift of the time conversion")
        if shift > 32 or not mult:
            raise option.corrupt(
                "the time conversion is wrong", expected="a shift up to 32", found=f"{mult}, {shift}"
            )
        return cls(mult, shift, offset, is_tsc=True)

    def __call__(self, ts: Times) -> Longs:
        """Times in ns; what does not fit 63 bits, before or after, is clipped to 0 or 2^63-1."""
        if self.is_tsc:
            mult = np.uint64(self.mult)
            low = (ts & np.uint64(0xFFFFFFFF)) * mult >> np.uint64(self.shift)
            ts = ((ts >> np.uint64(32)) * mult << np.uint64(32 - self.shift)) + low
        ns = ts.view(np.int64)
        if len(ns) and int(ns.min()) < 0:
            ns = np.where(ns < 0, MAX_NS, ns)
        if not self.offset:
            return ns
        lowest, highest = max(-self.offset, 0), min(MAX_NS - self.offset, MAX_NS)
        return np.clip(ns, lowest, highest) + self.offset


def _number(container: Container, option: int) -> int:
    text = container.option_text(option)
    if text is None:
        return 0
    try:
        return int(text.strip(), 0)
    except ValueError:
        raise container.option_cursor(b"").corrupt(
            f"option {option} is not a number", expected="a decimal number", found=repr(text)
        ) from None
