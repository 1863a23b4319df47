"""Constants of the trace.dat container and of ring buffer pages, named as their documentation names them.

Sources: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5); Linux include/linux/ring_buffer.h and
kernel/trace/ring_buffer.c. Nothing here is logic.
"""

from __future__ import annotations

from typing import Final

MAGIC: Final = b"\x17\x08\x44tracing"
"""First ten bytes of every trace.dat; then the version as NUL-ended digits, ``6`` or ``7``."""

HEADER_PAGE: Final = b"header_page\0"
HEADER_EVENT: Final = b"header_event\0"

# Ten-byte tags of version 6.
TAG_BYTES: Final = 10
TAG_OPTIONS: Final = b"options  \0"
TAG_FLYRECORD: Final = b"flyrecord\0"
TAG_LATENCY: Final = b"latency  \0"

# Ids of options (both versions) and of sections (version 7).
DONE: Final = 0
DATE: Final = 1
CPUSTAT: Final = 2
BUFFER: Final = 3
TRACECLOCK: Final = 4
UNAME: Final = 5
OFFSET: Final = 7
CPUCOUNT: Final = 8
VERSION: Final = 9
PROCMAPS: Final = 10
TSC2NSEC: Final = 14
STRINGS: Final = 15
HEADER_INFO: Final = 16
FTRACE_EVENTS: Final = 17
EVENT_FORMATS: Final = 18
KALLSYMS: Final = 19
PRINTK: Final = 20
CMDLINES: Final = 21
BUFFER_TEXT: Final = 22

SECTION_NAMES: Final = {
    0: "OPTIONS",
    BUFFER: "BUFFER",
    STRINGS: "STRINGS",
    HEADER_INFO: "HEADER_INFO",
    FTRACE_EVENTS: "FTRACE_EVENTS",
    EVENT_FORMATS: "EVENT_FORMATS",
    KALLSYMS: "KALLSYMS",
    PRINTK: "PRINTK",
    CMDLINES: "CMDLINES",
}

SECTION_HEADER_BYTES: Final = 16
SECTION_COMPRESSED: Final = 1
"""Bit of a section's flags: its content, or the CPU data that it lists, is compressed."""

# Ring buffer record types above the data lengths 1..28 (type_len 0: length in the next word).
TYPE_PADDING: Final = 29
TYPE_TIME_EXTEND: Final = 30
TYPE_TIME_STAMP: Final = 31

TYPE_LEN_BITS: Final = 5
TIME_DELTA_BITS: Final = 27

COMMIT_SIZE_MASK: Final = (1 << 27) - 1
"""Bits of a page's commit word that are the number of bytes of records."""
RB_MISSED_EVENTS: Final = 1 << 31
"""Bit of the commit word: events were lost before this page."""
RB_MISSED_STORED: Final = 1 << 30
"""Bit of the commit word: the number of lost events follows the records, as a long."""

# Limits for untrusted input: far above what real captures have.
MAX_SECTION_BYTES: Final = 1 << 26
MAX_CHUNK_BYTES: Final = 1 << 24
CHUNK_COUNT_BYTES: Final = 4
CHUNK_HEADER_BYTES: Final = 8
MAX_SUBBUF_BYTES: Final = 1 << 22
MAX_CPUS: Final = 1 << 16
MORE_OPTION_BYTES: Final = 1 << 20
"""How much larger than the file all options together may be, as they may be compressed."""
MAX_PLACES: Final = 1 << 18
"""Most CPUs of all buffers together."""
