"""What a perf.data lacks: lost events, damage, and what was not recorded, as rows of table ``quality``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from captures.decode import gather
from captures.losses import QualityRow
from captures.perfdata import constants as c
from captures.perfdata.side import IDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from captures.decode import Cpus
    from captures.perfdata.attr import Attr
    from captures.perfdata.samples import Payloads
    from captures.ringbuf import Longs

MOST_GAPS: Final = 10_000
"""Most rows about losses, beyond one for each CPU: those behind each other are told together."""

_MOST_LOST: Final = 1 << 36
"""Most events that one record may call lost; more is clipped."""

_LOST_AT: Final = 16
"""Byte of a PERF_RECORD_LOST at which the number is, of 8 bytes."""

_LOST_BYTES: Final = _LOST_AT + 8


@dataclass(frozen=True)
class Losses:
    """What was lost.

    Attributes:
        gaps: CPU, start_ns, end_ns and number of records of each loss; None: not known.
        samples: Samples lost, as the kernel counted them at the end of the recording (perf 6.1 and later).
    """

    gaps: list[tuple[int | None, int | None, int, int]]
    samples: int

    @property
    def in_gaps(self) -> int:
        """Records lost according to the gaps."""
        return sum(count for _, _, _, count in self.gaps)

    @property
    def total(self) -> int:
        """Events lost. The gaps tell where, the kernel's count how many: the larger number counts."""
        return max(self.in_gaps, self.samples)


class LossNotes:
    """Takes the records of a file in its order, and keeps what they tell of losses."""

    def __init__(self, u8: np.dtype[Any]) -> None:
        """Nothing is seen yet; ``u8``: type of a word of the file."""
        self._u8 = u8
        # Time of the latest record of each CPU, and at the end that of records whose CPU is not known.
        self._latest = np.full(c.MAX_CPUS + 1, -1, dtype=np.int64)
        self._lost: list[tuple[Cpus, Longs, Longs, Longs]] = []

    def note(self, found: Payloads) -> None:
        """Take the next records: of each LOST the CPU, the time of the record before, its own, the number."""
        ts_ns, cpu = found.ts_ns, found.cpu
        place = np.flatnonzero((found.ids == IDS["lost"]) & (found.size >= _LOST_BYTES))
        timed = np.flatnonzero(ts_ns > 0)
        if len(place):
            key = np.sort(cpu[timed].astype(np.int64) * len(cpu) + timed)
            before = np.searchsorted(key, cpu[place].astype(np.int64) * len(cpu) + place) - 1
            previous = key[before] % len(cpu) if len(key) else place
            is_here = (before >= 0) & (cpu[previous] == cpu[place])
            start = np.where(is_here, ts_ns[previous], self._latest[cpu[place]])
            number = gather(found.block, found.start[place] + _LOST_AT, self._u8)
            number = np.minimum(number, _MOST_LOST).astype(np.int64)
            self._lost.append((cpu[place], start, ts_ns[place], number))
        self._latest[cpu[timed]] = ts_ns[timed]

    def losses(self, lost_samples: Longs) -> Losses:
        """Losses with their times: from the record before in the buffer of that CPU to the note of the loss.

        Args:
            lost_samples: The number that each LOST_SAMPLES record tells. (Its CPU is of no use: perf 6.12
                writes 0 for every one.)
        """
        gaps: list[tuple[int | None, int | None, int, int]] = []
        if self._lost:
            cpu, start, end, number = map(np.concatenate, zip(*self._lost, strict=True))
            order = np.argsort(cpu, kind="stable")
            group = np.arange(len(cpu)) * MOST_GAPS // max(len(cpu), MOST_GAPS)
            cpus = cpu[order]
            first = np.append(True, (group[1:] != group[:-1]) | (cpus[1:] != cpus[:-1])).nonzero()[0]
            last = np.append(first[1:], len(cpu)) - 1
            gaps = [
                (None if at < 0 else at, None if begin < 0 else begin, stop, count)
                for at, begin, stop, count in zip(
                    cpus[first].tolist(),
                    start[order][first].tolist(),
                    end[order][last].tolist(),
                    np.add.reduceat(number[order], first).tolist(),
                    strict=True,
                )
            ]
        return Losses(gaps, int(np.minimum(lost_samples, _MOST_LOST).sum()))


def loss_rows(found: Losses) -> Iterable[QualityRow]:
    """Rows about lost events."""
    for cpu, start, end, count in found.gaps:
        where = "a CPU that is not known" if cpu is None else f"cpu {cpu}"
        text = f"{count} events of {where} were lost in this range: "
        text += "state that they changed is unknown from there on"
        yield QualityRow("lost_events", cpu, start, end, count, text, "warning")
    rest = found.samples - found.in_gaps
    if rest > 0:
        text = f"the kernel counted {found.samples} lost samples, "
        text += f"the records tell where {found.in_gaps} of them are missing"
        yield QualityRow("lost_events", None, None, None, rest, text, "warning")


def damage_rows(header: str | None, records: str | None, *, is_truncated: bool) -> Iterable[QualityRow]:
    """Rows about a file that holds less than it should."""
    if header is not None:
        text = f"the recording or the copy is not complete: {header}; later events may be missing"
        yield QualityRow("truncated", None, None, None, None, text, "error")
    if records is not None:
        kind = "truncated" if is_truncated else "corrupt"
        text = f"the records end early: {records}; later events are missing"
        yield QualityRow(kind, None, None, None, None, text, "error")


def sample_rows(foreign: int, unknown: int, short: int) -> Iterable[QualityRow]:
    """Rows about samples that are in no table."""
    if foreign:
        text = f"{foreign} samples are of events that are no tracepoints: they were left out"
        yield QualityRow("unknown_event", None, None, None, foreign, text, "info")
    if unknown:
        text = f"{unknown} samples are of events that the file does not describe: they were left out"
        yield QualityRow("unknown_event", None, None, None, unknown, text, "warning")
    if short:
        text = f"{short} samples end before their raw data do: they were left out"
        yield QualityRow("corrupt", None, None, None, short, text, "error")


def overwritten_rows(*, is_backward: bool) -> Iterable[QualityRow]:
    """A row about buffers that keep the newest events: no record tells which were overwritten."""
    if is_backward:
        text = (
            "full buffers overwrite their oldest events (--overwrite), and no record tells whether they did: "
            "of each CPU, events before its first one may be missing"
        )
        yield QualityRow("overwritten", None, None, None, None, text, "warning")


def attr_rows(attrs: list[Attr], throttled: int) -> Iterable[QualityRow]:
    """Rows about events that were not recorded, and about the clock."""
    sampled = [
        each for each in attrs if each.is_tracepoint and (each.flags & c.FLAG_FREQ or each.sample_period > 1)
    ]
    if sampled:
        first = sampled[0]
        often = (
            f"{first.sample_period} a second" if first.flags & c.FLAG_FREQ else f"1 of {first.sample_period}"
        )
        text = f"{len(sampled)} events were sampled ({often}): most of what they did is not in the capture"
        yield QualityRow("sampled", None, None, None, len(sampled), text, "error")
    counted = [each for each in attrs if each.is_tracepoint and not each.sample_period]
    if counted:
        text = f"{len(counted)} events were only counted (as those of a group with :S that do not lead it): "
        text += "none of them is in the capture"
        yield QualityRow("sampled", None, None, None, len(counted), text, "error")
    if throttled:
        text = f"the kernel stopped events {throttled} times as they came too fast: what they did is missing"
        yield QualityRow("lost_events", None, None, None, throttled, text, "warning")
    if any(each.clock == "perf" for each in attrs):
        text = "the clock perf may run apart between CPUs: events of two CPUs that are close may be swapped"
        yield QualityRow("clock", None, None, None, None, text, "info")
