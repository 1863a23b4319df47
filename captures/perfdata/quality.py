"""What a perf.data lacks: lost events, damage, and what was not recorded, as rows of table ``quality``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from captures.losses import QualityRow
from captures.perfdata import constants as c

if TYPE_CHECKING:
    from collections.abc import Iterable

    from captures.decode import Cpus
    from captures.perfdata.attr import Attr
    from captures.ringbuf import Longs

MOST_GAPS: Final = 10_000
"""Most rows about losses, beyond one for each CPU: those behind each other are told together."""

_MOST_LOST: Final = 1 << 36
"""Most events that one record may call lost; more is clipped."""


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


def find_losses(lost: tuple[Longs, Longs], lost_samples: Longs, ts_ns: Longs, cpu: Cpus) -> Losses:
    """Losses with their times: from the record before, in the buffer of that CPU, to the note of the loss.

    Args:
        lost: Place of each LOST record among all records, and the number it tells.
        lost_samples: The number that each LOST_SAMPLES record tells. (Its CPU is of no use: perf 6.12 writes
            0 for every one.)
        ts_ns: Time of every record, in the order of the file; 0: not known.
        cpu: CPU of every record; -1: not known.
    """
    place, number = lost[0], np.minimum(lost[1], _MOST_LOST)
    gaps: list[tuple[int | None, int | None, int, int]] = []
    if len(place):
        around = np.flatnonzero(np.isin(cpu, np.unique(cpu[place])) & (ts_ns > 0))
        key = np.sort(cpu[around].astype(np.int64) * len(cpu) + around)
        before = np.searchsorted(key, cpu[place].astype(np.int64) * len(cpu) + place) - 1
        previous = key[before] % len(cpu)
        is_known = (before >= 0) & (cpu[previous] == cpu[place])
        start = np.where(is_known, ts_ns[previous], -1)
        order = np.argsort(cpu[place], kind="stable")
        group = np.arange(len(place)) * MOST_GAPS // max(len(place), MOST_GAPS)
        cpus = cpu[place][order]
        first = np.append(True, (group[1:] != group[:-1]) | (cpus[1:] != cpus[:-1])).nonzero()[0]
        last = np.append(first[1:], len(place)) - 1
        gaps = [
            (None if at < 0 else at, None if begin < 0 else begin, end, count)
            for at, begin, end, count in zip(
                cpus[first].tolist(),
                start[order][first].tolist(),
                ts_ns[place][order][last].tolist(),
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
