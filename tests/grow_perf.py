"""Makes a large perf.data of a small one: its samples again and again, each time later.

    python -m tests.grow_perf IN.perf.data.xz OUT.data MIB

IN is a file (not a pipe's stream) that is not compressed, whose events all have IDENTIFIER, IP, TID and
TIME, as perf record makes them for tracepoints. OUT is one that a perf of Linux 6.1 can read.
"""

from __future__ import annotations

import lzma
import struct
import sys
from pathlib import Path

import numpy as np

from tests.perf_writer import narrowed

HEADER = struct.Struct("<IHH")
SAMPLE, FINISHED_ROUND = 9, 68
TIME_AT = 8 + 8 + 8 + 8
"""Byte of a sample at which its time is: behind header, identifier, ip, pid and tid."""
NEEDED = 1 << 16 | 1 | 2 | 4
FEATURES_AT = 72


def grow(source: Path, target: Path, size_bytes: int) -> None:
    content = narrowed(lzma.decompress(source.read_bytes()))
    entry, attrs_at, attrs_size, data_at, data_size = struct.unpack_from("<5Q", content, 16)
    for at in range(attrs_at, attrs_at + attrs_size, entry):
        assert struct.unpack_from("<Q", content, at + 24)[0] & NEEDED == NEEDED, "samples of another layout"
    features = sum(each.bit_count() for each in content[FEATURES_AT : FEATURES_AT + 32])
    once, samples, times, at = bytearray(), bytearray(), [], data_at
    while at < data_at + data_size:
        kind, _, size = HEADER.unpack_from(content, at)
        if kind == SAMPLE:
            times.append(len(samples) + TIME_AT)
            samples += content[at : at + size]
        elif kind != FINISHED_ROUND:
            once += content[at : at + size]
        at += size
    samples += HEADER.pack(FINISHED_ROUND, 0, HEADER.size)
    block = np.frombuffer(samples, np.uint8).copy()
    places = np.array(times)[:, None] + np.arange(8)
    first = block[places].copy().view("<u8")[:, 0]
    step = first.max() - first.min() + np.uint64(1)
    copies = max(1, -(-size_bytes // len(samples)))
    grown = len(once) + copies * len(samples)
    head = bytearray(content[:data_at])
    struct.pack_into("<Q", head, 48, grown)
    table = np.frombuffer(content, "<u8", 2 * features, data_at + data_size).copy()
    table[::2] += np.uint64(grown - data_size)
    with target.open("wb") as file:
        file.write(head)
        file.write(once)
        for number in range(copies):
            block[places] = (first + np.uint64(number) * step)[:, None].view(np.uint8).reshape(-1, 8)
            file.write(block.tobytes())
        file.write(table.tobytes())
        file.write(content[data_at + data_size + 16 * features :])


if __name__ == "__main__":
    grow(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) << 20)
