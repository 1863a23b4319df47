"""Call chains of samples -> the user's part of each, as payloads of events ``perf:user_stack``.

A chain is words; a marker says whose frames follow it. Kernel: perf_callchain() in kernel/events/core.c;
PERF_CONTEXT_* in include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from captures.decode import gather

if TYPE_CHECKING:
    from captures.ringbuf import Bytes, Longs

_FIRST_MARKER: Final = np.uint64((1 << 64) - 4095)
_USER: Final = np.uint64((1 << 64) - 512)
_HEAD_WORDS: Final = 1


def user_stacks(
    block: Bytes, chain: Longs, tid: np.ndarray[Any, Any], u8: np.dtype[Any]
) -> tuple[Bytes, Longs, Longs, Longs]:
    """The user stacks of samples; those without a user frame have none.

    Args:
        block: Bytes that hold the samples.
        chain: Byte at which the call chain of each begins: the number of its words, then they, all in the
            block.
        tid: Thread id of each.
        u8: Type of a word of the file.

    Returns:
        Payloads, each of the thread id (u32), 4 bytes, the frames (u64); of each the sample that it is of,
        its first byte, its size.
    """
    length = gather(block, chain, u8).astype(np.int64)
    owner = np.repeat(np.arange(len(chain)), length)
    first = np.cumsum(length) - length
    word = np.arange(len(owner))
    words = gather(block, chain[owner] + 8 * (1 + word - first[owner]), u8).astype(np.uint64)
    marker = np.maximum.accumulate(np.where(words >= _FIRST_MARKER, word, -1))
    is_user = (marker >= first[owner]) & (marker != word) & (words[marker] == _USER)
    frames = np.bincount(owner[is_user], minlength=len(chain)).astype(np.int64)
    whose = np.flatnonzero(frames)
    size = frames[whose] + _HEAD_WORDS
    begin = np.cumsum(size) - size
    out = np.zeros(int(size.sum()), u8)
    is_frame = np.ones(len(out), np.bool_)
    is_frame[begin] = False
    out[is_frame] = words[is_user]
    out.view(f"{u8.str[0]}u4")[2 * begin] = tid[whose]
    return out.view(np.uint8), whose, 8 * begin, 8 * size
