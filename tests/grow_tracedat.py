"""Makes a large trace.dat of a small one: the pages of each CPU again and again, each time later.

    python tests/grow_tracedat.py IN.dat OUT.dat MIB

OUT is of version 7 and not compressed, with at least MIB mebibytes. It takes no more memory than IN.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

from captures.source import Source
from captures.tracedat import constants as c
from captures.tracedat.capture import TraceDatCapture
from captures.tracedat.read import read_container
from captures.tracedat.stream import PageStream
from tests.tracedat_writer import Buffer, TraceDat
from tests.trim_tracedat import KEPT_OPTIONS, all_pages


def grow(source: Path, target: Path, size_bytes: int) -> None:
    capture = TraceDatCapture(Source(source))
    container = capture._container
    [buffer] = container.buffers
    pages = {each.cpu: all_pages(PageStream(container, buffer, each)) for each in buffer.cpus}
    head = TraceDat(
        formats=[(system, text) for system, text in container.event_texts if system != "ftrace"],
        buffers=[Buffer({cpu: each[: buffer.page_bytes] for cpu, each in pages.items()}, clock="mono")],
        ftrace=[text for system, text in container.event_texts if system == "ftrace"],
        kallsyms=capture._kallsyms,
        cmdlines=capture._table(c.CMDLINES),
        options=[(n, content) for n in KEPT_OPTIONS for content in container.options.get(n, [])],
    ).build()
    # The data go behind the file that the writer makes; its option says where they are.
    [option] = read_container(memoryview(head), str(target)).options[c.BUFFER]
    entry = struct.Struct("<IQQ")
    times = -(-size_bytes // sum(map(len, pages.values())))
    places, end = b"", -(-len(head) // 4096) * 4096
    for cpu, each in pages.items():
        places += entry.pack(cpu, end, len(each) * times)
        end += len(each) * times
    at = head.index(option) + len(option) - len(places)
    info = capture.info
    assert info.first_ts_ns is not None
    assert info.last_ts_ns is not None
    span = info.last_ts_ns - info.first_ts_ns + 1_000_000
    with target.open("wb") as file:
        file.write(head[:at] + places + head[at + len(places) :] + bytes(-len(head) % 4096))
        for each in pages.values():
            grid = np.frombuffer(each, dtype="<u8").reshape(-1, buffer.page_bytes // 8)
            for time in range(times):
                later = grid.copy()
                later[:, 0] += np.uint64(time * span)
                file.write(later)


if __name__ == "__main__":
    grow(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) << 20)
