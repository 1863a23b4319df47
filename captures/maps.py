"""Text of /proc/PID/maps and smaps -> table ``proc_map``: which VMAs processes had at some instant.

From files, folders and tar archives; from markers ``maps PID LINE`` that ``replay record`` writes into the
trace; from the mmap records of perf, which tell what it found when it began, and what the kernel maps from
then on (all of that with ``perf record -d``, else what is executable). Comment lines ``# KEY=VALUE ...`` may
tell ``pid`` and the times of CLOCK_MONOTONIC, in ns, before and after the text was read (``mono_ns_start``,
``mono_ns_end``); a file without ``pid`` has it in its name: ``PID.maps``, ``maps-PID``, ``PID/smaps``.
"""

from __future__ import annotations

import re
import tarfile
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from schemas import TABLES
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from captures.info import Capture

MAX_BYTES: Final = 1 << 28
"""Of all texts together."""
MAX_FILES: Final = 100_000

VM_FLAGS: Final = {
    **{"rd": 0x1, "wr": 0x2, "ex": 0x4, "sh": 0x8, "mr": 0x10, "mw": 0x20, "me": 0x40, "ms": 0x80},
    **{"gd": 0x100, "pf": 0x400, "lo": 0x2000, "io": 0x4000, "sr": 0x8000, "rr": 0x10000, "dc": 0x20000},
    **{"de": 0x40000, "lf": 0x80000, "ac": 0x100000, "nr": 0x200000, "ht": 0x400000, "sf": 0x800000},
    **{"wf": 0x2000000, "dd": 0x4000000, "mm": 0x10000000, "hg": 0x20000000, "nh": 0x40000000},
    **{"mg": 0x80000000, "dp": 1 << 40},
}
"""Letters of ``VmFlags:`` in smaps and their VM_* bits (fs/proc/task_mmu.c); others do not matter here."""

_LINE: Final = (
    r"^(?P<start>[0-9a-f]{1,16})-(?P<end>[0-9a-f]{1,16}) (?P<r>[r-])(?P<w>[w-])(?P<x>[x-])(?P<s>[ps]) "
    r"(?P<offset>[0-9a-f]{1,16}) (?P<device>[0-9a-f]+:[0-9a-f]+) (?P<inode>\d{1,19}) *(?P<path>.*)$"
)
_KEY: Final = re.compile(r"(\w+)=(\d{1,18})\b")
_PID_IN_NAME: Final = re.compile(
    r"(?:^|/)(?:(\d{1,9})[./](?:s?maps)\b|s?maps\D(?:.*\D)?(\d{1,9})(?:\.\w+)?$)"
)
_MARKER: Final = r"^maps (\d{1,9}) (.*)$"


def known_maps(capture: Capture, ev_marker: pa.Table, path: Path | None) -> pa.Table:
    """Table ``proc_map`` of all that a capture itself and a file beside it tell.

    Args:
        capture: The capture.
        ev_marker: Its markers.
        path: File, folder or archive with snapshots; None: there is none.

    Raises:
        UsageError: As ``read_maps``; or the file's times are of another clock than the capture's.
    """
    parts = [marker_maps(ev_marker), recorder_maps(capture.stored_maps())]
    if "perf:mmap2" in capture.formats:
        parts.append(perf_maps(capture.decode(["perf:mmap2"])["perf:mmap2"]))
    if path is not None:
        parts.append(read_maps(path))
        timed = parts[-1]["end_ns"].null_count < parts[-1].num_rows
        if timed and capture.info.clock != "mono":
            raise UsageError(
                "the times of the maps do not fit those of the events",
                where=str(path),
                hint=f"they are of CLOCK_MONOTONIC, those of the capture {capture.info.clock}",
            )
    frames: list[pl.DataFrame] = []
    for part in parts:
        used = frames[-1]["snapshot"].max() if frames else None
        first = used + 1 if isinstance(used, int) else len(frames) << 32
        frames.append(pl.DataFrame(pl.from_arrow(part)).with_columns(pl.col("snapshot") + first))
    return _table(pl.concat(frames))


def known_threads(capture: Capture) -> pa.Table:
    """Table ``proc_thread``: what perf found when it began, of all processes that it looked at.

    Threads of the kernel are each their own process there.
    """
    table = TABLES["proc_thread"]
    if "perf:comm" not in capture.formats:
        return table.empty()
    found = pl.DataFrame(pl.from_arrow(capture.decode(["perf:comm"])["perf:comm"]))
    rows = found.filter(pl.col("ts_ns") == 0).select("pid", "tgid").unique(maintain_order=True)
    return table.cast(rows.to_arrow())


def recorder_maps(text: str) -> pa.Table:
    """Table ``proc_map`` of what trace-cmd stores: ``PID LINES NAME``, then ``START END FILE`` each.

    These are the mappings that have a name, without protection and page offset; when they were read, nobody
    says: they are taken for those at the begin.
    """
    rows, pid = [], None
    for line in text.splitlines():
        words = line.rstrip("\0").split(" ", 2)
        if len(words) == 3 and pid is not None and not words[2].strip().isdigit() and _is_range(words):
            start, end = (int(word, 16) for word in words[:2])
            bracketed = words[2].startswith("[")
            rows.append(
                {
                    "snapshot": pid,
                    "pid": pid,
                    "place": -1,
                    "is_whole": False,
                    "is_record": False,
                    "vm_start": start,
                    "vm_end": end,
                    "file": None if words[2] in ("[heap]", "[stack]") else words[2],
                    "name": words[2] if bracketed else None,
                }
            )
        elif len(words) == 3 and all(re.fullmatch(r"[0-9a-f]{1,8}", word) for word in words[:2]):
            pid = int(words[0], 16)
    arrow = TABLES["proc_map"].arrow
    return TABLES["proc_map"].cast(pa.Table.from_pylist(rows, schema=arrow))


def _is_range(words: list[str]) -> bool:
    """Whether the words are begin and end of a mapping and its name."""
    hexadecimal = all(re.fullmatch(r"[0-9a-f]{1,16}", word) for word in words[:2])
    return hexadecimal and words[2][:1] in ("/", "[") and int(words[0], 16) < int(words[1], 16)


def read_maps(path: Path) -> pa.Table:
    """Table ``proc_map`` of a file, of all files in a folder or of a tar archive.

    Raises:
        UsageError: It cannot be read, is too large, holds no such line, or does not say of which process.
    """
    frames, total = [], 0
    for number, (name, content) in enumerate(_texts(path)):
        total += len(content)
        if total > MAX_BYTES or number >= MAX_FILES:
            raise UsageError(
                f"more than {MAX_BYTES >> 20} MiB or {MAX_FILES:,} files of maps",
                where=str(path),
                hint="give the files of the processes that matter",
            )
        frames.append(_snapshot(number, name, content.decode("utf-8", errors="replace")))
    lines = pl.concat(frames) if frames else pl.DataFrame()
    if lines.is_empty():
        raise UsageError(
            "no line of /proc/PID/maps", where=str(path), hint="see man proc_pid_maps for what it looks like"
        )
    return TABLES["proc_map"].cast(lines.to_arrow())


def marker_maps(ev_marker: pa.Table) -> pa.Table:
    """Table ``proc_map`` of the markers ``maps PID LINE``; a snapshot ends where addresses fall."""
    markers = pl.DataFrame(pl.from_arrow(ev_marker))
    found = markers.with_columns(
        pid=pl.col("text").str.extract(_MARKER, 1).cast(pl.Int32, strict=False),
        line=pl.col("text").str.extract(_MARKER, 2),
    ).drop_nulls(["pid", "line"])
    lines = _lines(found["line"]).with_columns(found["pid"], found["seq"], found["ts_ns"])
    lines = lines.filter(pl.col("vm_start").is_not_null())
    begins = (pl.col("pid") != pl.col("pid").shift(1)) | (pl.col("vm_start") < pl.col("vm_start").shift(1))
    lines = lines.with_columns(snapshot=begins.fill_null(True).cum_sum().cast(pl.Int64)).with_columns(
        begin_ns=pl.col("ts_ns").min().over("snapshot"),
        end_ns=pl.col("ts_ns").max().over("snapshot"),
        place=pl.col("seq").max().over("snapshot"),
        is_whole=pl.lit(True),
        is_record=pl.lit(False),
    )
    return _table(lines)


def perf_maps(mmap2: pa.Table) -> pa.Table:
    """Table ``proc_map`` of perf's mmap2 records; those with time 0 tell what it found when it began.

    Without ``perf record -d`` these are the executable mappings only, so what is not among them is not known.
    The kernel's own records tell vm_pgoff of anonymous memory too; what perf found has 0 there.
    """
    found = pl.DataFrame(pl.from_arrow(mmap2)).with_row_index("row")
    name, is_record = pl.col("filename"), pl.col("ts_ns") != 0
    has_file = (pl.col("ino") != 0) | (name.str.contains(r"^(/|\[v)") & (name != "//anon"))
    ts_ns = pl.when(is_record).then("ts_ns")
    lines = found.select(
        snapshot=pl.when(is_record).then((1 << 31) + pl.col("row").cast(pl.Int64)).otherwise("tgid"),
        pid=pl.when(is_record).then("pid").otherwise(pl.col("tgid").cast(pl.Int32)),
        begin_ns=ts_ns,
        end_ns=ts_ns,
        place=pl.when(is_record).then("seq").otherwise(-1),
        is_whole=pl.lit(False),
        is_record=is_record,
        vm_start="addr",
        vm_end=pl.col("addr") + pl.col("len"),
        prot=(pl.col("prot") & 7).cast(pl.Int32),
        is_shared=(pl.col("flags") & 1) != 0,
        pgoff=pl.when(has_file | is_record).then(pl.col("pgoff") // 4096),
        file=pl.when(has_file).then(pl.format("{}:{}:{} {}", "maj", "min", "ino", name)),
        name=pl.when(name.str.starts_with("[")).then(name),
        vm_flags=pl.lit(None, pl.UInt64),
        is_faulted=pl.lit(None, pl.Boolean),
    )
    return _table(lines)


def _table(lines: pl.DataFrame) -> pa.Table:
    return TABLES["proc_map"].cast(lines.select(TABLES["proc_map"].arrow.names).to_arrow())


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; what is behind the limit of bytes is not read."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    with file.open("rb") as opened:
                        yield str(file), opened.read(MAX_BYTES + 1)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                for member in archive:
                    opened_member = archive.extractfile(member) if member.isfile() else None
                    if opened_member is not None:
                        yield member.name, opened_member.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as opened:
                yield str(path), opened.read(MAX_BYTES + 1)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UsageError(
            f"cannot read the maps: {error}", where=str(path), hint="see where --maps points"
        ) from error


def _snapshot(number: int, name: str, text: str) -> pl.DataFrame:
    """The lines of one text."""
    rows = text.splitlines()
    told = {key: int(value) for row in rows if row.startswith("#") for key, value in _KEY.findall(row)}
    found = _PID_IN_NAME.search(name)
    pid = told.get("pid", int(found[1] or found[2]) if found else None)
    lines = _lines(pl.Series(rows, dtype=pl.String))
    smaps = pl.DataFrame({"row": rows}, schema={"row": pl.String})
    flags = pl.col("row").str.extract(r"^VmFlags:\s*(.*)$", 1)
    kilobytes = pl.col("row").str.extract(r"^(?:Anonymous|Swap):\s*(\d{1,15}) kB$", 1).cast(pl.Int64)
    beside = (
        smaps.select(flags=flags, kilobytes=kilobytes, mapping=lines["vm_start"].is_not_null().cum_sum())
        .group_by("mapping", maintain_order=True)
        .agg(pl.col("flags").drop_nulls().first(), pl.col("kilobytes").sum())
        .filter(pl.col("mapping") > 0)
    )
    lines = lines.filter(pl.col("vm_start").is_not_null())
    if pid is None and len(lines):
        raise UsageError(
            "the maps do not say of which process they are", where=name, hint="name the file PID.maps"
        )
    begin = told.get("mono_ns_start", told.get("mono_ns_end"))
    return lines.with_columns(
        snapshot=pl.lit(number, pl.Int64),
        pid=pl.lit(pid, pl.Int32),
        begin_ns=pl.lit(begin, pl.Int64),
        end_ns=pl.lit(told.get("mono_ns_end", begin), pl.Int64),
        place=pl.lit(None if begin is not None else -1, pl.Int64),
        is_whole=pl.lit(True),
        is_record=pl.lit(False),
        vm_flags=pl.Series([_bits(each) for each in beside["flags"]], dtype=pl.UInt64),
        is_faulted=pl.Series([True if each else None for each in beside["kilobytes"]], dtype=pl.Boolean),
    ).select(TABLES["proc_map"].arrow.names)


def _bits(letters: str | None) -> int | None:
    """VM_* bits of ``VmFlags:``."""
    return None if letters is None else sum({VM_FLAGS.get(each, 0) for each in letters.split()})


def _lines(rows: pl.Series) -> pl.DataFrame:
    """One row a text; null where it is no line of maps."""
    parts = pl.DataFrame({"row": rows}).select(pl.col("row").str.extract_groups(_LINE)).unnest("row")
    bits = [
        pl.when(pl.col(name) == name).then(bit).otherwise(0)
        for name, bit in zip("rwx", (1, 2, 4), strict=True)
    ]
    number = {
        name: pl.col(name).str.to_integer(base=16, dtype=pl.UInt64, strict=False)
        for name in ("start", "end", "offset")
    }
    has_file = (pl.col("inode") != "0") | pl.col("path").str.contains(r"^(/|\[v)")
    known = number["start"] < number["end"]
    return parts.select(
        vm_start=pl.when(known).then(number["start"]),
        vm_end=number["end"],
        prot=pl.sum_horizontal(bits).cast(pl.Int32),
        is_shared=pl.col("s") == "s",
        pgoff=pl.when(has_file).then(number["offset"] // 4096),
        file=pl.when(has_file).then(pl.format("{} {} {}", "device", "inode", "path")),
        name=pl.when(pl.col("path").str.starts_with("[")).then("path"),
        vm_flags=pl.lit(None, pl.UInt64),
        is_faulted=pl.lit(None, pl.Boolean),
    )
