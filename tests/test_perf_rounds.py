"""Records of a perf.data come in order, round after round; else they are sorted at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.perfdata import records as perfdata_records
from captures.perfdata.records import RecordStream
from captures.perfdata.rounds import in_order
from captures.perfdata.samples import SampleReader
from captures.windows import OutOfOrder
from tests import perf_writer as w
from tests.test_perf_layouts import FORMATS, LITTLE, insert, pair, switch

if TYPE_CHECKING:
    from pathlib import Path

ROUND_END = 68
SPAN = 20


@st.composite
def rounds(draw: st.DrawFn, *, follows_rule: bool) -> list[list[tuple[int, int]]]:
    """Time and CPU of the records of each round; in each, CPU after CPU.

    As perf reads the buffers: what it finds in one of them was written before it reads the next time, so a
    record of one round may be up to a round older than the latest of the round before.
    """
    number = draw(st.integers(1, 8))
    found: list[list[tuple[int, int]]] = [[] for _ in range(number)]
    for cpu in range(3):
        for at in range(number):
            least = 1 + SPAN * (max(at - 1, 0) if follows_rule else 0)
            times = draw(st.lists(st.integers(least, SPAN * (at + 1)), min_size=cpu == at == 0, max_size=4))
            found[at] += [(time, cpu) for time in sorted(times)]
    return found


def written(path: Path, found: list[list[tuple[int, int]]], *, marked: bool) -> list[tuple[int, int, int]]:
    """Write the file; time, CPU and number of each record in the order that perf script has."""
    perf, events = w.Perf(), pair()
    records, expected = [], []
    for each in found:
        for time, cpu in each:
            number = len(expected)
            which = number % 3 == 0
            raw = switch(LITTLE, number) if which else insert(LITTLE, number, b"note")
            records.append(
                perf.sample(events[which], raw, time, cpu, tid=number, number=events[which].ids[0])
            )
            expected.append((time, cpu, number))
        if marked:
            records.append(perf.record(ROUND_END, b""))
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    return sorted(expected)


def is_in_order(path: Path) -> bool:
    """Whether one pass gives the records of a file in order."""
    with open_capture(path) as capture:
        perf: Any = capture
        reader = SampleReader(perf._perf)
        stream = RecordStream(perf._perf)
        try:
            for _ in in_order((each, reader.read(each)) for each in stream.blocks()):
                pass
        except OutOfOrder:
            return False
        return True


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("follows_rule", [True, False])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), block=st.sampled_from([256, 1024, 1 << 24]))
def test_records_come_by_time_then_cpu_then_place(
    tmp_path_factory: pytest.TempPathFactory, follows_rule: bool, marked: bool, data: Any, block: int
) -> None:
    path = tmp_path_factory.mktemp("rounds") / "perf.data"
    expected = written(path, data.draw(rounds(follows_rule=follows_rule)), marked=marked)
    with patch.object(perfdata_records, "BLOCK_BYTES", block), open_capture(path) as capture:
        assert is_in_order(path) or (marked and not follows_rule)
        tables = capture.decode(["sched:switch", "ksmprobe:avc_insert"])
        rows = [row for table in tables.values() for row in table.to_pylist()]
    rows.sort(key=lambda row: row["seq"])
    assert [row["seq"] for row in rows] == list(range(len(expected)))
    assert [(row["ts_ns"], row["cpu"], row["pid"]) for row in rows] == expected


def test_a_record_that_is_earlier_than_its_round_allows(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    expected = written(path, [[(10, 0)], [(20, 1)], [(30, 0)], [(5, 1)]], marked=True)
    with patch.object(perfdata_records, "BLOCK_BYTES", 256), open_capture(path) as capture:
        assert not is_in_order(path)
        switches = capture.decode(["sched:switch"])["sched:switch"].to_pylist()
    assert [(row["ts_ns"], row["cpu"], row["pid"]) for row in switches] == [
        each for each in expected if each[2] % 3 == 0
    ]
