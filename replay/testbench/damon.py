"""DAMON set to look at given pages: rmap walks that move nothing, for machines of one NUMA node.

DAMON marks a page as not accessed, and looks later whether it was: one walk each (mm/damon/paddr.c).
Documentation/admin-guide/mm/damon/usage.rst describes the files.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.testbench.mm import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = Path("/sys/kernel/mm/damon/admin/kdamonds")
STAT: Final = Path("/sys/module/damon_stat/parameters/enabled")
"""DAMON's own statistics, which let nobody else use it (Linux 6.17 or newer)."""

_SAMPLE_S: Final = 0.1
_NEVER_S: Final = 100.0
"""Aggregates and updates would merge the ranges; none happens while DAMON looks."""


def look_at(frames: Sequence[int], folder: Path = FOLDER, stat: Path = STAT) -> bool:
    """Have DAMON look at pages for one or two of its intervals, and leave DAMON as it was.

    Args:
        frames: Page frame numbers, ascending.
        folder: DAMON's files.
        stat: The switch of its statistics.

    Returns:
        Whether it did; not where the kernel has no DAMON, or somebody else uses it.
    """
    count = folder / "nr_kdamonds"
    if not count.exists() or count.read_text(encoding="ascii").strip() != "0":
        return False
    statistics = stat.exists() and stat.read_text(encoding="ascii").strip() == "Y"
    try:
        if statistics:
            _write(stat, "N")
        _write(count, 1)
        _set_up(folder / "0", frames)
        _write(folder / "0" / "state", "on")
        time.sleep(1.5 * _SAMPLE_S)
    except OSError:
        return False
    finally:
        with suppress(OSError):  # it is off where it could not be set up
            _write(folder / "0" / "state", "off")
        with suppress(OSError):
            _write(count, 0)
        if statistics:
            _write(stat, "Y")
    return True


def _set_up(kdamond: Path, frames: Sequence[int]) -> None:
    _write(kdamond / "contexts" / "nr_contexts", 1)
    context = kdamond / "contexts" / "0"
    _write(context / "operations", "paddr")
    intervals = context / "monitoring_attrs" / "intervals"
    for name, seconds in (("sample_us", _SAMPLE_S), ("aggr_us", _NEVER_S), ("update_us", _NEVER_S)):
        _write(intervals / name, int(seconds * 1e6))
    _write(context / "targets" / "nr_targets", 1)
    ranges = context / "targets" / "0" / "regions"
    _write(ranges / "nr_regions", len(frames))
    for number, frame in enumerate(frames):
        _write(ranges / str(number) / "start", frame * PAGE)
        _write(ranges / str(number) / "end", (frame + 1) * PAGE)


def _write(path: Path, value: str | int) -> None:
    path.write_text(str(value), encoding="ascii")
