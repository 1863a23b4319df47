"""Makes a small fixture of a real trace.dat: the same pages, formats and options, without most of kallsyms.

    python tests/trim_tracedat.py IN.dat OUT.dat[.xz]

kallsyms is 1.7 MB of a compressed capture; of it only the functions stay that a walk may name. Written with
``tracedat_writer``; ``trace-cmd report -R -t`` prints the same for IN and OUT.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np

from captures.source import Source
from captures.tracedat import constants as c
from captures.tracedat.capture import TraceDatCapture
from captures.tracedat.stream import PageStream
from tests.tracedat_writer import Buffer, Kernel, TraceDat

KEPT_SYMBOLS = (
    b"_one\n",
    b" remove_migration_pte\n",
    b" tracing_mark_write\n",
    b" folio_not_mapped\n",
    b" page_not_mapped\n",
    b" invalid_folio_referenced_vma\n",
)
KEPT_OPTIONS = (c.CPUSTAT, c.TRACECLOCK, c.UNAME, c.CPUCOUNT, c.VERSION, c.TSC2NSEC, c.OFFSET, c.DATE)


def all_pages(stream: PageStream) -> bytes:
    """The pages of one CPU, unpacked."""
    count, _ = stream.look(sys.maxsize)
    pages = np.empty(count * stream.page_bytes, dtype=np.uint8)
    stream.copy(pages)
    return pages.tobytes()


def trim(source: Path, target: Path) -> None:
    capture = TraceDatCapture(Source(source))
    container = capture._container
    lines = capture._kallsyms.splitlines(keepends=True)
    buffers = [
        Buffer(
            cpus={place.cpu: all_pages(PageStream(container, buffer, place)) for place in buffer.cpus},
            name=buffer.name,
            clock=buffer.clock or "",
            page_bytes=buffer.page_bytes,
        )
        for buffer in container.buffers
    ]
    writer = TraceDat(
        formats=[(system, text) for system, text in container.event_texts if system != "ftrace"],
        buffers=buffers,
        kernel=Kernel("<" if container.order == "little" else ">", container.long_bytes),
        version=container.version,
        compression="none" if container.version == 6 else container.compression,
        ftrace=[text for system, text in container.event_texts if system == "ftrace"],
        sizes_count_chunks=not (container.option_text(c.VERSION) or "").startswith("3.1."),
        kallsyms=b"".join(line for line in lines if line.endswith(KEPT_SYMBOLS)),
        cmdlines=capture._table(c.CMDLINES),
        options=[
            (n, content)
            for n in KEPT_OPTIONS
            for content in container.options.get(n, [])
            if not (n == c.TRACECLOCK and container.version == 6)
        ],
    )
    content = writer.build()
    target.write_bytes(lzma.compress(content) if target.suffix == ".xz" else content)


if __name__ == "__main__":
    trim(Path(sys.argv[1]), Path(sys.argv[2]))
