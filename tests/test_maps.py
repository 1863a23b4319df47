"""Texts of /proc/PID/maps and smaps, markers, perf's and trace-cmd's records -> table proc_map."""

from __future__ import annotations

import io
import lzma
import os
import re
import subprocess
import tarfile
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from captures import open_capture
from captures.maps import known_maps, marker_maps, read_maps, recorder_maps
from schemas import TABLES
from schemas.errors import UsageError
from tests.perf_tool import perf
from tests.perf_writer import narrowed

PERF = Path(__file__).parent / "data" / "perf" / "pipe_zstd.perf.data.xz"
TEXT = """# label=x pid=42 mono_ns_start=1000
00400000-00401000 r-xp 00002000 08:01 77         /bin/a program
01000000-01002000 rw-p 00000000 00:00 0          [heap]
7f0000000000-7f0000003000 rw-s 00000000 00:01 9  /dev/zero (deleted)
7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0  [stack]
# mono_ns_end=2000
"""


def frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def test_lines_of_maps(tmp_path: Path) -> None:
    (tmp_path / "dump.txt").write_text(TEXT)
    lines = frame(read_maps(tmp_path / "dump.txt"))
    assert lines.select("vm_start", "vm_end", "prot", "is_shared", "pgoff", "file", "name").rows() == [
        (0x400000, 0x401000, 5, False, 2, "08:01 77 /bin/a program", None),
        (0x1000000, 0x1002000, 3, False, None, None, "[heap]"),
        (0x7F0000000000, 0x7F0000003000, 3, True, 0, "00:01 9 /dev/zero (deleted)", None),
        (0x7FFE00000000, 0x7FFE00021000, 3, False, None, None, "[stack]"),
    ]
    assert lines.select("pid", "begin_ns", "end_ns", "place", "is_whole").unique().rows() == [
        (42, 1000, 2000, None, True)
    ]
    assert lines["vm_flags"].null_count() == len(lines)


def test_smaps_of_this_process_tell_flags_and_anonymous_pages(tmp_path: Path) -> None:
    (tmp_path / "7.smaps").write_text(Path("/proc/self/smaps").read_text())
    lines = frame(read_maps(tmp_path / "7.smaps"))
    assert lines["pid"].unique().to_list() == [7]
    assert lines["place"].unique().to_list() == [-1]
    assert lines.filter(pl.col("vm_flags") & 7 != pl.col("prot").cast(pl.UInt64)).is_empty()
    stack = lines.filter(pl.col("name") == "[stack]").row(0, named=True)
    assert stack["is_faulted"]
    assert stack["vm_flags"] & 0x100


def test_archives_and_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for name in ("proc/8/maps", "maps-9.txt"):
            member = tarfile.TarInfo(name)
            content = TEXT.replace("pid=42", "").encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    packed = frame(read_maps(tmp_path / "all.tar.gz"))
    assert packed.group_by("snapshot", "pid").len().sort("snapshot").rows() == [(0, 8, 4), (1, 9, 4)]
    folder = tmp_path / "dumps"
    folder.mkdir()
    (folder / "8.maps").write_text(TEXT.replace("pid=42", ""))
    assert frame(read_maps(folder))["pid"].to_list() == [8] * 4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("7.maps", "no maps at all\n", "no line of /proc/PID/maps"),
        ("dump.txt", TEXT.replace("pid=42", ""), "do not say of which process"),
        ("missing", None, "cannot read the maps"),
    ],
)
def test_what_is_no_maps_is_refused(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_maps(tmp_path / name)


def test_markers() -> None:
    rows = [line for line in TEXT.splitlines() if not line.startswith("#")]
    texts = [f"maps 5 {row}" for row in rows] + ["else", *(f"maps 5 {row}" for row in rows[:2])]
    events = [
        {"seq": 10 + n, "ts_ns": 100 * n, "cpu": 0, "pid": 1, "text": text} for n, text in enumerate(texts)
    ]
    lines = frame(marker_maps(pa.Table.from_pylist(events, schema=TABLES["ev_marker"].arrow)))
    assert lines.group_by("snapshot", "pid", "place", "begin_ns", "end_ns").len().sort("snapshot").rows() == [
        (1, 5, 13, 0, 300, 4),
        (2, 5, 16, 500, 600, 2),
    ]


def test_what_trace_cmd_stores() -> None:
    lines = frame(recorder_maps("1f 2 /bin/sh\n5000 7000 /bin/sh\n7ffe0000 7ffe2000 [stack]\n"))
    assert lines.select("pid", "vm_start", "vm_end", "prot", "file", "name").rows() == [
        (31, 0x5000, 0x7000, None, "/bin/sh", None),
        (31, 0x7FFE0000, 0x7FFE2000, None, None, "[stack]"),
    ]


def test_what_perf_found_when_it_began_is_what_perf_script_prints(tmp_path: Path) -> None:
    data = tmp_path / "perf.data"
    data.write_bytes(narrowed(lzma.decompress(PERF.read_bytes())))
    with open_capture(data) as capture:
        lines = frame(known_maps(capture, TABLES["ev_marker"].empty(), None))
    printed = subprocess.run(
        [perf(), "script", "-i", data, "--show-mmap-events", "--ns"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    ).stdout
    record = r" 0\.0{9}: PERF_RECORD_MMAP2 (\d+)/\d+: \[0x(\w+)\(0x(\w+)\) .*\]: ([rwx-]{3})[ps] "
    found = [
        (int(pid), int(start, 16), int(start, 16) + int(length, 16), *(letter in prot for letter in "rwx"))
        for pid, start, length, prot in re.findall(record, printed)
    ]
    bits = [(pl.col("prot") & bit) != 0 for bit in (1, 2, 4)]
    lines = lines.filter(~pl.col("is_record"))
    own = lines.select("pid", "vm_start", "vm_end", *(each.alias(str(n)) for n, each in enumerate(bits)))
    assert len(own) > 10
    assert set(own.rows()) == set(found)
