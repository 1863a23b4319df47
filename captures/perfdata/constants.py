"""Constants of perf.data, named as its documentation names them.

Sources: Linux tools/perf/Documentation/perf.data-file-format.txt, include/uapi/linux/perf_event.h,
tools/lib/perf/include/perf/event.h. Nothing here is logic.
"""

from __future__ import annotations

from typing import Final

MAGIC: Final = b"PERFILE2"
MAGIC_SWAPPED: Final = b"2ELIFREP"
"""First bytes of a file by a machine of the other byte order: big endian, as the first is little."""

HEADER_BYTES: Final = 104
PIPE_HEADER_BYTES: Final = 16
RECORD_HEADER_BYTES: Final = 8
"""Of every record: u32 type, u16 misc, u16 size, which counts the header."""

# perf_event_attr: places of fields.
ATTR_SIZE_VER0: Final = 64
ATTR_SIZE: Final = 4
ATTR_CONFIG: Final = 8
ATTR_SAMPLE_PERIOD: Final = 16
ATTR_SAMPLE_TYPE: Final = 24
ATTR_READ_FORMAT: Final = 32
ATTR_FLAGS: Final = 40
ATTR_CLOCKID: Final = 92

# perf_event_attr.type.
TYPE_TRACEPOINT: Final = 2

# Bits of perf_event_attr's flags.
FLAG_FREQ: Final = 1 << 10
FLAG_SAMPLE_ID_ALL: Final = 1 << 18
FLAG_USE_CLOCKID: Final = 1 << 25
FLAG_WRITE_BACKWARD: Final = 1 << 27

# Bits of perf_event_attr.sample_type, of those fields that lie before or at the raw data.
SAMPLE_IP: Final = 1 << 0
SAMPLE_TID: Final = 1 << 1
SAMPLE_TIME: Final = 1 << 2
SAMPLE_ADDR: Final = 1 << 3
SAMPLE_READ: Final = 1 << 4
SAMPLE_CALLCHAIN: Final = 1 << 5
SAMPLE_ID: Final = 1 << 6
SAMPLE_CPU: Final = 1 << 7
SAMPLE_PERIOD: Final = 1 << 8
SAMPLE_STREAM_ID: Final = 1 << 9
SAMPLE_RAW: Final = 1 << 10
SAMPLE_IDENTIFIER: Final = 1 << 16

SAMPLE_FIXED: Final = (
    SAMPLE_IDENTIFIER,
    SAMPLE_IP,
    SAMPLE_TID,
    SAMPLE_TIME,
    SAMPLE_ADDR,
    SAMPLE_ID,
    SAMPLE_STREAM_ID,
    SAMPLE_CPU,
    SAMPLE_PERIOD,
)
"""Fields of 8 bytes at the start of a sample, in their order."""

SAMPLE_ID_FIELDS: Final = (
    SAMPLE_TID,
    SAMPLE_TIME,
    SAMPLE_ID,
    SAMPLE_STREAM_ID,
    SAMPLE_CPU,
    SAMPLE_IDENTIFIER,
)
"""Fields of 8 bytes at the end of every other record (sample_id_all), in their order."""

# Bits of perf_event_attr.read_format.
FORMAT_TOTAL_TIME_ENABLED: Final = 1 << 0
FORMAT_TOTAL_TIME_RUNNING: Final = 1 << 1
FORMAT_ID: Final = 1 << 2
FORMAT_GROUP: Final = 1 << 3
FORMAT_LOST: Final = 1 << 4

# Records of the kernel.
MMAP: Final = 1
LOST: Final = 2
COMM: Final = 3
EXIT: Final = 4
THROTTLE: Final = 5
FORK: Final = 7
SAMPLE: Final = 9
MMAP2: Final = 10
LOST_SAMPLES: Final = 13

# Records of perf itself.
HEADER_ATTR: Final = 64
TRACING_DATA: Final = 66
FINISHED_ROUND: Final = 68
AUXTRACE: Final = 71
HEADER_FEATURE: Final = 80
COMPRESSED: Final = 81
COMPRESSED2: Final = 83

MISC_COMM_EXEC: Final = 1 << 13
"""Bit of misc: the name comes from an exec."""
MISC_LOST_SAMPLES_BPF: Final = 1 << 15
"""Bit of misc: a BPF filter dropped the samples, as it was asked to."""

# Bits of the feature bitmap.
FEATURE_BITS: Final = 256
FEATURE_TRACING_DATA: Final = 1
FEATURE_HOSTNAME: Final = 3
FEATURE_OSRELEASE: Final = 4
FEATURE_VERSION: Final = 5
FEATURE_ARCH: Final = 6
FEATURE_NRCPUS: Final = 7
FEATURE_CMDLINE: Final = 11
FEATURE_DIR_FORMAT: Final = 24
FEATURE_COMPRESSED: Final = 27

COMPRESSION_ZSTD: Final = 1

CLOCKS: Final = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
"""Names of clock ids: those that ftrace gives the same clocks, where it has them."""

TRACING_DATA_MAGIC: Final = b"\x17\x08\x44tracing"

# Limits for untrusted input: far above what real captures have.
MAX_ATTR_BYTES: Final = 1 << 12
MAX_CPUS: Final = 1 << 16
