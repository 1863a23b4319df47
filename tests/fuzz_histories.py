"""Cases for ``tests.fuzz_captures`` that reach the analysis: right files whose events tell nonsense.

The formats are those of a real capture, so every probe and stock event that replay reads is there. Values
come from small pools, so that events meet: the same avc is inserted twice, removed first, on two trees, at
addresses that end before they begin; walks return before they enter; CPUs lose events.
"""

from __future__ import annotations

import gzip
import lzma
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

from captures import open_capture
from captures.canonical import syscall_names
from captures.matching import match_all
from replay.inspect import inspect
from replay.options import AnalyzeOptions
from replay.pipeline import analyze
from reports.page import render_page
from reports.text import render_text
from schemas.errors import ReplayError
from tests.tracedat_writer import Buffer, Kernel, TraceDat

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from captures.eventfmt import EventFormat

SOURCE = Path(__file__).parent / "data" / "truth" / "7.3_s1-small_triple.dat"
KERNEL = Kernel()
POINTERS = [0xFFFF_8880_0000_0000 + 0x40 * n for n in range(6)]
ADDRESSES = [0x7F00_0000_0000 + 0x1000 * n for n in range(12)]
ODD = [0, 1, 2, 4095, 4096, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lambda content: lzma.compress(content, preset=0),
    "zst": zstandard.compress,
}

OUTCOMES = {"analysed", "CaptureError"}
"""What may become of a file that is analysed, besides what may of one that is read."""


@cache
def formats() -> list[EventFormat]:
    """The events that replay reads, as a kernel described them."""
    with open_capture(SOURCE) as capture:
        names = {each.name for each in match_all(capture)} | set(syscall_names(capture))
        return [capture.formats[name] for name in sorted(names)]


def history(chance: random.Random) -> bytes:
    """A trace.dat with a few hundred events; one in four is packed."""
    known = formats()
    liked = [each for each in known if each.system in ("ksmprobe", "migrate", "ksmtruth")]
    pids = [chance.choice((0, 1, 7, 300, (1 << 31) - 1)) for _ in range(3)]
    buffers = {}
    for cpu in range(chance.choice((1, 2, 3))):
        pages, ts = b"", chance.choice((0, 1000, 1 << 40))
        for _ in range(chance.choice((0, 1, 2, 5))):
            records, room = [], 3900
            begin = ts
            while room > 300 and chance.random() < 0.97:
                event = chance.choice(liked if chance.random() < 0.7 else known)
                delta = chance.choice((0, 0, 1, 10, 1000))
                records.append(KERNEL.data(delta, payload(chance, event, chance.choice(pids))))
                room -= len(records[-1])
                ts += delta
            pages += KERNEL.page(begin, records, lost=chance.choice((False, False, False, True, 3)))
        buffers[cpu] = pages
    content = TraceDat(
        [(each.system, each.text) for each in known if each.system != "ftrace"],
        [Buffer(buffers)],
        version=chance.choice((6, 7)),
        compression="none",
        ftrace=[each.text for each in known if each.system == "ftrace"],
        options=[(5, b"Linux host 7.3.1 x86_64\0"), (4, b"[mono] local\0")][: chance.randrange(3)],
    ).build()
    return PACKERS[chance.choice(list(PACKERS))](content) if chance.random() < 0.25 else content


def payload(chance: random.Random, event: EventFormat, pid: int) -> bytes:
    """The bytes of one event."""
    fixed = max(each.offset + max(each.size, 1) for each in event.all_fields)
    data = bytearray(fixed) + bytearray(b"try_to_migrate_one\0\0")
    data[0:2] = KERNEL.u(2, event.id)
    data[4:8] = KERNEL.u(4, pid)
    for each in event.fields.values():
        if each.is_dynamic:
            data[each.offset : each.offset + 4] = KERNEL.u(4, 19 << 16 | fixed)
        elif each.size in (1, 2, 4, 8):
            pool = (POINTERS, ADDRESSES, ADDRESSES, range(4), ODD)[chance.choice((0, 0, 1, 2, 3, 4))]
            value = chance.choice(pool) | chance.choice((0, 0, 0x200))
            data[each.offset : each.offset + each.size] = KERNEL.u(each.size, value)
    return bytes(data)


def any_options(chance: random.Random) -> AnalyzeOptions:
    """What may be asked for."""
    return AnalyzeOptions(
        evidence=chance.choice((None, None, "exact", "modelled", "both")),
        walks=chance.choice(("observed", "every-node")),
    )


def analysed(path: Path, options: AnalyzeOptions) -> str:
    """What becomes of a file that is inspected and analysed: ``analysed``, or the name of its error."""
    try:
        inspect(path)
        tables = analyze(path, options).tables
        render_text(tables)
        render_page(tables)
    except ReplayError as error:
        return type(error).__name__ if len(str(error).split("\n")) == 3 else f"not three lines: {error}"
    return "analysed"
