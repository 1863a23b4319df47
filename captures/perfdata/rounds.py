"""The payloads of a perf.data in order of time, round after round: only records that are near are sorted.

perf record empties the buffers of all CPUs one after the other, then writes PERF_RECORD_FINISHED_ROUND. No
record behind the end of a round is earlier than the latest one before the end of the round before (perf:
tools/perf/util/ordered-events.c), so those before that time are due. Where a file breaks that rule,
``OutOfOrder`` is raised, and the caller reads the file again and sorts at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from captures.perfdata import constants as c
from captures.perfdata.samples import Payloads
from captures.windows import OutOfOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from captures.decode import Cpus
    from captures.perfdata.records import Records
    from captures.ringbuf import Longs

MAX_HELD: Final = 1 << 21
"""Most records that may wait for the end of a round."""


def in_order(blocks: Iterable[tuple[Records, Payloads]]) -> Iterator[Payloads]:
    """Payloads in the order of ``time_order``; ``blocks``: records, and the payloads among them.

    Raises:
        OutOfOrder: A record is earlier than its round allows, or too many wait for the end of a round.
    """
    held: list[Payloads] = []
    due: int = np.iinfo(np.int64).min
    latest = before = due
    records = waiting = 0
    for block, found in blocks:
        if len(found.place):
            if int(found.ts_ns.min()) < due:
                raise OutOfOrder
            # The latest time up to the end of each round.
            reached = np.maximum(np.maximum.accumulate(found.ts_ns), latest)
            ends = np.searchsorted(found.place, np.flatnonzero(block.type == c.FINISHED_ROUND))
            rounds = [before, *np.concatenate([[latest], reached])[ends].tolist()]
            latest = int(reached[-1])
            held.append(found.behind(records))
            waiting += len(found.place)
            if len(rounds) > 1:
                due, before = rounds[-2:]
                whole = Payloads.joined(held)
                order = time_order(whole.ts_ns, whole.cpu)
                count = int(np.searchsorted(whole.ts_ns[order], due))
                yield whole.take(order[:count])
                held, waiting = [whole.take(np.sort(order[count:]))], len(order) - count
            if waiting > MAX_HELD:
                raise OutOfOrder
        records += len(block.type)
    if held:
        whole = Payloads.joined(held)
        yield whole.take(time_order(whole.ts_ns, whole.cpu))


def time_order(ts_ns: Longs, cpu: Cpus, *, backward: bool = False) -> Longs:
    """Records by time, then CPU, then place in the file.

    Args:
        ts_ns: Time of each, in the order of the file.
        cpu: CPU of each.
        backward: The file has the newest record of each buffer first.
    """
    order = np.argsort(ts_ns, kind="stable")
    ordered = ts_ns.take(order)
    same = ordered[1:] == ordered[:-1]
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        members = order[tied]
        order[tied] = members[np.lexsort((-members if backward else members, cpu[members], ts_ns[members]))]
    return order
