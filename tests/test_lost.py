"""What a capture lacks is told: lost events with their range, files that were cut or killed while written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captures import open_capture
from schemas.errors import CorruptError, TruncatedError, UnknownFormatError
from tests.test_ringbuf import LITTLE, event, quality, read, write
from tests.tracedat_writer import Buffer, TraceDat, event_format

DATA = Path(__file__).parent / "data" / "tracedat"
FORMATS = [("t", event_format("e", 300, [("u32 n", 8, 4, 0)]))]
PAGE_BYTES = 4096


def one_event(ts: int, n: int, **page: Any) -> bytes:
    return LITTLE.page(ts, [LITTLE.data(0, event(LITTLE, n))], **page)


def lost_rows(path: Path) -> list[tuple[int | None, ...]]:
    rows = [row for row in quality(path) if row["kind"] == "lost_events"]
    return [tuple(row[name] for name in ("cpu", "start_ns", "end_ns", "count")) for row in rows]


@pytest.mark.parametrize("window_bytes", [1, 1 << 24])
def test_each_gap_has_its_cpu_range_and_count(
    tmp_path: Path, window_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last event before the gap to the first behind it; nothing before the first page: no start."""
    from captures import windows

    monkeypatch.setattr(windows, "WINDOW_BYTES", window_bytes)
    busy = [one_event(100, 1, lost=7), one_event(200, 2), one_event(300, 3, lost=True), one_event(900, 4)]
    idle = [one_event(150, 5), LITTLE.page(400, [], lost=2), one_event(500, 6)]
    path = write(tmp_path / "t.dat", {0: busy, 3: idle})
    assert lost_rows(path) == [(0, None, 100, 7), (0, 200, 300, None), (3, 150, 400, 2)]
    with open_capture(path) as capture:
        assert capture.info.events_lost is None


def test_a_real_capture_that_lost_events() -> None:
    """2795 and 4949: `overrun` in the kernel's per_cpu/cpuN/stats, which trace-cmd put into the file."""
    path = DATA / "lost_events.dat"
    with open_capture(path) as capture:
        assert capture.info.events_lost == 2795 + 4949
    rows = lost_rows(path)
    assert sum(count or 0 for cpu, _, _, count in rows if cpu == 0) == 2795
    # One page of cpu 1 does not say how many: the others say less than the kernel.
    assert [count for cpu, _, _, count in rows if cpu == 1].count(None) == 1
    assert sum(count or 0 for cpu, _, _, count in rows if cpu == 1) < 4949


def v7(compression: str) -> tuple[bytes, int]:
    """A file of two CPUs, and where its last options begin."""
    cpus = {0: one_event(10, 1) + one_event(50, 2), 1: one_event(20, 3) + one_event(60, 4)}
    content = TraceDat(FORMATS, [Buffer(cpus)], compression=compression, chunk_bytes=5000).build()
    return content, content.rindex(b"mono\0") - len(b"\3\0" + bytes(4 + 8 + 1)) - 16


ALL = [(10, 0, 1), (20, 1, 3), (50, 0, 2), (60, 1, 4)]


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_the_last_options_are_cut_off(tmp_path: Path, compression: str) -> None:
    content, options_at = v7(compression)
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    assert quality(path) == []
    for end in (len(content) - 1, options_at + 1, options_at):
        path.write_bytes(content[:end])
        assert read(path) == ALL
        [row] = quality(path)
        assert (row["kind"], row["severity"]) == ("truncated", "error")
        assert "2 CPUs were found" in row["effect"]
        with open_capture(path) as capture:
            assert capture.info.truncated


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_the_data_are_cut_before_the_options(tmp_path: Path, compression: str) -> None:
    """Whole pages, or whole chunks, are read; of the second CPU nothing is left."""
    content, options_at = v7(compression)
    path = tmp_path / "t.dat"
    second_at = content.rindex(one_event(20, 3)[:40]) if compression == "none" else options_at // 4096 * 4096
    path.write_bytes(content[: second_at + 20])
    assert read(path) == [each for each in ALL if each[1] == 0]
    assert {row["kind"] for row in quality(path)} == {"truncated"}


def test_killed_while_it_wrote_the_data(tmp_path: Path) -> None:
    """As trace-cmd leaves it: no link to further options, and no size of the section yet."""
    content, options_at = v7("none")
    changed = bytearray(content[:options_at])
    link = changed.rindex(LITTLE.u(8, options_at))
    changed[link : link + 8] = bytes(8)
    section_at = changed.index(LITTLE.u(2, 3, 0) + LITTLE.u(4, 0), link)
    changed[section_at + 8 : section_at + 16] = bytes(8)
    path = tmp_path / "t.dat"
    path.write_bytes(changed)
    assert read(path) == ALL
    path.write_bytes(changed[:section_at])
    with pytest.raises(TruncatedError, match="no events yet") as caught:
        open_capture(path)
    assert "trace-cmd restore" in str(caught.value)


def test_killed_before_any_options(tmp_path: Path) -> None:
    content = bytearray(v7("none")[0])
    options_at = len(b"\x17\x08\x44tracing7\0") + 2 + 4 + len(b"none\0\0")
    content[options_at : options_at + 8] = bytes(8)
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    with pytest.raises(TruncatedError, match="no events yet"):
        open_capture(path)


def test_text_of_a_latency_tracer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat(FORMATS, [], options=[(22, LITTLE.u(8, 64))]).build())
    with pytest.raises(UnknownFormatError, match="latency"):
        open_capture(path)


@pytest.mark.parametrize("version", [6, 7])
def test_data_that_are_told_of_twice_are_refused(tmp_path: Path, version: int) -> None:
    """65536 CPUs whose data are all the same place would be read 65536 times."""
    pages = one_event(10, 1) * 3
    content = TraceDat(FORMATS, [Buffer({0: pages, 1: pages})], version=version).build()
    size = LITTLE.u(8, len(pages))
    assert content.count(size) >= 2
    path = tmp_path / "t.dat"
    path.write_bytes(content.replace(size, LITTLE.u(8, len(content))))
    with pytest.raises(CorruptError, match="overlap"):
        open_capture(path)


def test_chunks_that_give_far_too_much_are_left_out(tmp_path: Path) -> None:
    """Each chunk is in its bounds, all together are not: a small file would keep a machine busy."""
    k = LITTLE
    writer = TraceDat(FORMATS, [], compression="zstd")
    chunk = writer.chunk(bytes(1 << 20))
    data = k.u(4, 400) + chunk * 400
    assert len(data) * 512 < 400 << 20
    writer.buffers = [Buffer({0: one_event(10, 1)})]
    content = bytearray(writer.build())
    start = content.rindex(k.u(4, 1) + writer.chunk(one_event(10, 1)))
    option = k.u(4, 0) + k.u(8, start, len(k.u(4, 1) + writer.chunk(one_event(10, 1))))
    place = content.rindex(option)
    content[place : place + len(option)] = k.u(4, 0) + k.u(8, len(content), len(data))
    path = tmp_path / "t.dat"
    path.write_bytes(content + data)
    [row] = quality(path)
    assert row["kind"] == "corrupt"
    assert "512 times" in row["effect"]
