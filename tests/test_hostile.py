"""Captures are untrusted: cut, flipped and forged files end in a result or in a ReplayError, never otherwise.

Whatever is done to a file, ``everything`` may raise nothing but a ReplayError, in bounded time and memory.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import resource
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from schemas.errors import (
    CaptureError,
    CorruptError,
    MissingEventsError,
    ReplayError,
    TruncatedError,
    UnknownFormatError,
)
from tests.tracedat_writer import HEADER_EVENT, Buffer, Kernel, TraceDat, event_format

DATA = Path(__file__).parent / "data" / "tracedat"
K = Kernel()
INSERT = event_format(
    "avc_insert",
    1601,
    [
        ("unsigned long __probe_ip", 8, 8, 0),
        *((f"u64 {name}", 16 + 8 * n, 8, 0) for n, name in enumerate(("avc", "vma", "anon_vma", "vm_start"))),
        ("__data_loc char[] note", 48, 4, 1),
    ],
)
PRINT = event_format("print", 5, [("unsigned long ip", 8, 8, 0), ("char buf[]", 16, 0, 0)])


def small(version: int = 7, compression: str = "none", **changes: Any) -> bytes:
    """A file with everything in it, a few KiB long: two buffers, two CPUs, losses, options, tables."""

    def insert(n: int) -> bytes:
        return (
            K.common(1601, n) + K.u(8, 1, n, n + 1, n + 2, n << 12) + K.u(4, 5 << 16 | 52) + b"note\0\0\0\0"
        )

    records = [K.data(5, insert(n)) for n in range(4)] + [K.data(1, K.common(5, 1) + K.u(8, 7) + b"text\n\0")]
    pages = K.page(1000, records, lost=3) + K.page(2000, [*records, K.padding()])
    given: dict[str, Any] = {
        "formats": [("ksmprobe", INSERT)],
        "buffers": [Buffer({0: pages, 1: pages}), Buffer({1: pages}, name="other")],
        "version": version,
        "compression": compression,
        "chunk_bytes": 5000,
        "ftrace": [PRINT],
        "kallsyms": b"ffffffff81000000 T _text\n",
        "cmdlines": b"1 init\n",
        "options": [
            (5, b"Linux host 6.12.1 x86_64\0"),
            (7, b"0\0"),
            (2, b"CPU: 0\noverrun: 3\n\0"),
            (14, K.u(4, 1, 0) + K.u(8, 0)),
        ],
    }
    return TraceDat(**(given | changes)).build()


def everything(path: Path) -> dict[str, Any]:
    """Open a file and ask for all that can be asked for."""
    with open_capture(path) as capture:
        tables = capture.decode(capture.event_counts())
        canonical = canonical_events(capture)
        assert capture.symbol(1) is None
        return {
            "info": capture.info,
            "rows": sum(table.num_rows for table in tables.values()),
            "canonical": sum(table.num_rows for table in canonical.values()),
            "quality": capture.quality().to_pylist(),
            "comms": capture.comms(),
        }


def survives(path: Path, content: bytes) -> str:
    """What becomes of a file with that content: the name of its error, ``told`` or ``whole``."""
    path.write_bytes(content)
    try:
        result = everything(path)
    except ReplayError as error:
        return type(error).__name__ if len(str(error).split("\n")) == 3 else f"not three lines: {error}"
    return "told" if any(row["severity"] == "error" for row in result["quality"]) else "whole"


OUTCOMES = {
    "whole",
    "told",
    "UnknownFormatError",
    "TruncatedError",
    "CorruptError",
    "MissingEventsError",
}
VARIANTS = [(6, "none"), (7, "none"), (7, "zlib"), (7, "zstd")]


@pytest.mark.parametrize(("version", "compression"), VARIANTS)
def test_the_whole_file_is_read(tmp_path: Path, version: int, compression: str) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(version, compression))
    result = everything(path)
    assert result["rows"] == 30
    assert result["canonical"] == 30
    assert result["info"].kernel_release == "6.12.1"
    assert result["info"].events_lost == 9
    assert result["comms"] == {1: "init"}
    assert {row["kind"] for row in result["quality"]} == {"lost_events"}


@pytest.mark.parametrize(("version", "compression"), VARIANTS)
def test_cut_anywhere(tmp_path: Path, version: int, compression: str) -> None:
    """Every length up to the data, then every 97th: an error or a note, and never a silent loss."""
    content = small(version, compression)
    lengths = sorted({*range(0, min(len(content), 3000)), *range(0, len(content), 97), len(content) - 1})
    outcomes = {length: survives(tmp_path / "t.dat", content[:length]) for length in lengths}
    silent = [length for length, outcome in outcomes.items() if outcome == "whole"]
    assert silent == []
    assert outcomes[0] == "UnknownFormatError"
    assert "TruncatedError" in outcomes.values()


def test_cut_data_of_version_6_leave_what_is_whole(tmp_path: Path) -> None:
    content = small(6)
    path = tmp_path / "t.dat"
    path.write_bytes(content[: len(content) - 4096 - 100])
    result = everything(path)
    assert result["rows"] == 20  # the last page of the last buffer is gone, the one before it is cut
    assert result["info"].truncated
    assert [row["kind"] for row in result["quality"] if row["severity"] == "error"] == ["truncated"]


@pytest.mark.parametrize(("version", "compression"), VARIANTS)
def test_flipped_bytes(tmp_path: Path, version: int, compression: str) -> None:
    content = small(version, compression)
    chance = random.Random(f"{version}{compression}")
    places = [n for n, byte in enumerate(content) if byte] or [0]
    for _ in range(600):
        changed = bytearray(content)
        for place in chance.sample(places, chance.choice((1, 1, 2, 8))):
            changed[place] ^= chance.choice((1, 0x80, 0xFF, chance.randrange(1, 256)))
        assert survives(tmp_path / "t.dat", bytes(changed)) in OUTCOMES


@pytest.mark.parametrize("name", ["zstd.dat", "zlib.dat", "two_buffers.dat", "kernel_6.12.dat"])
def test_flipped_and_cut_real_captures(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    chance = random.Random(name)
    for _ in range(25):
        changed = bytearray(content)
        for place in range(chance.choice((1, 4, 64))):
            place = chance.randrange(len(changed))
            changed[place] = chance.randrange(256)
        assert survives(tmp_path / "t.dat", bytes(changed)) in OUTCOMES
        assert survives(tmp_path / "t.dat", content[: chance.randrange(len(content))]) in OUTCOMES


@settings(max_examples=300)
@given(st.binary(max_size=400), st.sampled_from([b"", b"6\0\0\x08", b"7\0\0\x08\0\x10\0\0zstd\0001.5\0"]))
def test_any_bytes_behind_the_magic(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "t.dat"
    assert survives(path, b"\x17\x08\x44tracing" + start + content) not in ("whole", "told")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"some words\nand more\n", "a line that has a task"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), "bytes 7f 45"),
    ],
)
def test_files_that_are_no_capture(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(UnknownFormatError) as caught:
        open_capture(path)
    assert caught.value.exit_code == 3
    assert caught.value.path == str(path)
    assert caught.value.offset == 0
    assert found in str(caught.value.found)
    assert caught.value.hint


def test_less_than_the_magic(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(b"\x17\x08\x44tracin")
    with pytest.raises(TruncatedError, match="magic number"):
        open_capture(path)


def test_a_file_that_grows_is_what_it_was_when_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small())
    with open_capture(path) as capture:
        with path.open("ab") as file:
            file.write(bytes(5 << 20))
        assert capture.info.sha256 == hashlib.sha256(small()).hexdigest()
        assert (capture.info.size_bytes, capture.info.truncated) == (len(small()), False)


def test_no_file_a_directory_a_pipe(tmp_path: Path) -> None:
    import os

    with pytest.raises(CaptureError, match="cannot be opened"):
        open_capture(tmp_path / "absent.dat")
    with pytest.raises(UnknownFormatError, match="not a file"):
        open_capture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnknownFormatError, match="not a file") as refused:
        open_capture(tmp_path / "pipe")
    assert "- < PIPE" in refused.value.hint


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (10, b"8\0", UnknownFormatError),
        (10, b"x\0", UnknownFormatError),
        (12, b"\2", CorruptError),
        (13, b"\5", CorruptError),
        (14, b"\0\0\0\0", CorruptError),
        (14, b"\1\0\0\0", CorruptError),
        (14, b"\xff\xff\xff\xff", CorruptError),
    ],
)
def test_wrong_file_headers(tmp_path: Path, place: int, value: bytes, expected: type[CaptureError]) -> None:
    content = bytearray(small())
    content[place : place + len(value)] = value
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    with pytest.raises(expected) as caught:
        open_capture(path)
    assert caught.value.offset == place
    assert caught.value.expected
    assert caught.value.found
    assert caught.value.hint


@pytest.mark.parametrize(
    "header_page",
    [
        b"",
        K.header_page().replace(b"timestamp", b"moment"),
        K.header_page().replace(b"offset:16", b"offset:2"),
        K.header_page().replace(
            b"size:8;\tsigned:1;\n\tfield: int over", b"size:3;\tsigned:1;\n\tfield: int over"
        ),
        K.header_page().replace(b"size:4080", b"size:9999999"),
    ],
)
def test_wrong_layout_of_pages(tmp_path: Path, header_page: bytes) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(header_page=header_page))
    with pytest.raises(CorruptError, match="layout of ring buffer pages"):
        open_capture(path)


def test_wrong_bits_of_records(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(header_event=HEADER_EVENT.replace(b"27 bits", b"26 bits")))
    with pytest.raises(CorruptError, match="27 bits"):
        open_capture(path)


@pytest.mark.parametrize(
    "formats",
    [
        [("t", b"no format at all")],
        [("t", b"")],
        [("t", event_format("a", 9, [])), ("t", event_format("b", 9, []))],
        [("t", event_format("a", 9, [])), ("t", event_format("a", 8, []))],
        [("t", event_format("a", 1 << 16, []))],  # found by fuzzing: no place to count it
    ],
)
def test_wrong_formats(tmp_path: Path, formats: list[tuple[str, bytes]]) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(formats=formats))
    with pytest.raises(CorruptError, match="formats cannot be read"):
        open_capture(path)


@pytest.mark.parametrize(
    "fields",
    [
        [("u64 a", 900000, 8, 0)],
        [("u64 a", 8, 900000, 0)],
        [("u64 a", 8, 8, 0), ("u64 a", 16, 8, 0)],
        [(f"u8 a{n}", 8, 1, 0) for n in range(600)],
        [("* []", 8, 8, 0)],
    ],
)
def test_formats_that_put_fields_anywhere(tmp_path: Path, fields: list[tuple[str, int, int, int]]) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(formats=[("ksmprobe", event_format("avc_insert", 1601, fields))]))
    with (
        open_capture(path) as capture,
        pytest.raises(CorruptError, match="the format of ksmprobe:avc_insert"),
    ):
        capture.decode(["ksmprobe:avc_insert"])


def test_records_shorter_than_their_format(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    longer = INSERT.replace(b"\nprint fmt", b"\tfield:u64 more;\toffset:60;\tsize:8;\tsigned:0;\n\nprint fmt")
    path.write_bytes(small(formats=[("ksmprobe", longer)]))
    with open_capture(path) as capture:
        assert capture.decode(["ksmprobe:avc_insert"])["ksmprobe:avc_insert"].num_rows == 0
        row = next(row for row in capture.quality().to_pylist() if row["kind"] == "corrupt")
    assert row["count"] == 24
    assert row["severity"] == "error"
    assert "shorter than their format" in row["effect"]


def test_strings_that_lie_outside_their_record(tmp_path: Path) -> None:
    text = event_format("t", 9, [("__data_loc char[] a", 8, 4, 0), ("__rel_loc char[] b", 12, 4, 0)])

    def record(a: tuple[int, int], b: tuple[int, int]) -> bytes:
        places = K.u(4, a[1] << 16 | a[0], b[1] << 16 | b[0])
        return K.data(1, K.common(9, 1) + places + b"one\0two\0\xff\xfe\0\0")

    pages = K.page(
        1,
        [
            record((16, 4), (4, 4)),
            record((16, 400), (0xFFFF, 1)),
            record((24, 4), (0, 12)),
            record((28, 0), (0, 0)),
        ],
    )
    path = tmp_path / "t.dat"
    path.write_bytes(small(formats=[("t", text)], buffers=[Buffer({0: pages})]))
    with open_capture(path) as capture:
        table = capture.decode(["t:t"])["t:t"]
        rows = capture.quality().to_pylist()
    assert table["a"].to_pylist() == ["one", None, "\\xff\\xfe", ""]
    assert table["b"].to_pylist() == ["two", None, "one", ""]
    assert [row["count"] for row in rows if row["kind"] == "corrupt"] == [2]


def test_event_without_a_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small(ftrace=[]))
    with open_capture(path) as capture:
        row = next(row for row in capture.quality().to_pylist() if row["kind"] == "unknown_event")
    assert row["count"] == 6


def test_event_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_bytes(small())
    with open_capture(path) as capture, pytest.raises(MissingEventsError) as caught:
        capture.decode(["ksmprobe:avc_inser"])
    assert "ksmprobe:avc_insert" in str(caught.value)


class Lying(TraceDat):
    """Its chunks hold ``frame``, and say that it gives what the chunk should."""

    frame = b""

    def chunk(self, content: bytes) -> bytes:
        return struct.pack("<II", len(self.frame), len(content)) + self.frame


def test_frames_that_lie_about_their_size(tmp_path: Path) -> None:
    """A frame that gives more or less than it says is an error; it is never unpacked beyond that."""
    pages = K.page(1000, [K.data(5, K.common(5, 1) + K.u(8, 7) + b"text\n\0")])
    bomb = bytes(1 << 28)
    frames = {
        "zlib": [zlib.compress(bomb, 1), zlib.compress(pages[:100]), b"", b"nonsense"],
        "zstd": [
            zstandard.compress(bomb),
            zstandard.ZstdCompressor(write_content_size=False).compress(bomb),
            zstandard.compress(pages[:100]),
            b"",
            b"nonsense",
        ],
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for compression, cases in frames.items():
        for frame in cases:
            writer = Lying([], [Buffer({0: pages})], compression=compression, ftrace=[PRINT])
            writer.frame = frame
            path = tmp_path / "t.dat"
            path.write_bytes(writer.build())
            with open_capture(path) as capture:
                assert capture.event_counts() == {}
                assert capture.quality().to_pylist()[-1]["severity"] == "error"
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 100


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_chunks_that_would_be_too_large(tmp_path: Path, compression: str) -> None:
    """They are not even tried, however well the frame may fit."""
    writer = TraceDat([], [Buffer({0: bytes(1 << 25)})], compression=compression, chunk_bytes=1 << 25)
    path = tmp_path / "t.dat"
    path.write_bytes(writer.build())
    with open_capture(path) as capture:
        assert capture.info.events == 0
        effect = capture.quality().to_pylist()[-1]["effect"]
    assert "too large" in effect


def test_option_sections_that_lead_in_a_circle(tmp_path: Path) -> None:
    content = bytearray(small())
    first = struct.unpack_from("<Q", content, content.index(b"none\0\0") + 6)[0]
    size = struct.unpack_from("<Q", content, first + 8)[0]
    content[first + 16 + size - 8 : first + 16 + size] = struct.pack("<Q", first)
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="do not end"):
        open_capture(path)


def test_too_many_cpus(tmp_path: Path) -> None:
    content = bytearray(small(6))
    at = content.index(b"options  \0") - 4
    content[at : at + 4] = struct.pack("<I", 0x7FFFFFFF)
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="too many CPUs"):
        open_capture(path)


def test_option_with_the_number_of_cpus_wins(tmp_path: Path) -> None:
    """Version 6 keeps the number twice; the option is right where more CPUs came up than were counted."""
    content = bytearray(small(6, options=[(8, K.u(4, 2))]))
    at = content.index(b"options  \0") - 4
    content[at : at + 4] = K.u(4, 1)
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    assert everything(path)["rows"] == 30


def test_latency_text(tmp_path: Path) -> None:
    content = small(6).replace(b"flyrecord\0", b"latency  \0")
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    with pytest.raises(UnknownFormatError, match="latency tracer"):
        open_capture(path)


PACKERS = {"xz": lzma.compress, "gz": gzip.compress, "zst": zstandard.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files(tmp_path: Path, suffix: str) -> None:
    """Whole, in two streams, cut, damaged, and packed nonsense."""
    pack = PACKERS[suffix]
    content = small()
    path = tmp_path / f"t.dat.{suffix}"
    path.write_bytes(pack(content))
    assert everything(path)["rows"] == 30
    path.write_bytes(pack(content[:1000]) + pack(content[1000:]))
    assert everything(path)["rows"] == 30
    packed = pack(content)
    path.write_bytes(packed[:8])
    with pytest.raises(TruncatedError, match="ends too early"):
        open_capture(path)
    path.write_bytes(packed + b"what is behind it")
    with pytest.raises(CaptureError):
        open_capture(path)
    path.write_bytes(pack(b"some text\n"))
    with pytest.raises(UnknownFormatError, match="text"):
        open_capture(path)
    chance = random.Random(suffix)
    for _ in range(100):
        changed = bytearray(packed)
        changed[chance.randrange(6, len(changed))] ^= 1 << chance.randrange(8)
        assert survives(path, bytes(changed)) in OUTCOMES


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize(
    "name", ["tracedat/version6.dat.xz", "perf/pipe_zstd.perf.data.xz", "text/triple.report.txt.xz"]
)
def test_of_a_packed_file_that_was_cut_is_read_what_is_there(tmp_path: Path, name: str, suffix: str) -> None:
    """As whatever unpacks it finds it: the same as of a file of these bytes that is not packed."""
    whole = lzma.decompress((DATA.parent / name).read_bytes())
    packed = PACKERS[suffix](whole)
    path, plain = tmp_path / f"cut.{suffix}", tmp_path / "plain"
    path.write_bytes(packed[: len(packed) * 4 // 5])
    decoder = {
        "xz": lzma.LZMADecompressor,
        "gz": lambda: zlib.decompressobj(31),
        "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
    }[suffix]()
    plain.write_bytes(decoder.decompress(path.read_bytes()))
    with open_capture(path) as cut, open_capture(plain) as expected:
        assert cut.event_counts() == expected.event_counts()
        assert 100 < cut.info.events == expected.info.events
        assert cut.info.truncated
        (own,) = [row for row in cut.quality().to_pylist() if "has no end mark" in row["effect"]]
        assert (own["kind"], own["severity"]) == ("truncated", "error")
        assert [row for row in cut.quality().to_pylist() if row != own] == expected.quality().to_pylist()


@pytest.mark.parametrize("bound", ["MAX_UNPACKED_BYTES", "FREE_BYTES"])
def test_packed_bomb_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """16 MiB in 2.5 KB: more than is allowed at all, or more than 512 times its size."""
    from captures import source

    monkeypatch.setattr(source, bound, 1 << 22)
    path = tmp_path / "t.dat.xz"
    path.write_bytes(lzma.compress(bytes(1 << 24)))
    with pytest.raises(CorruptError, match="gives too much"):
        open_capture(path)
