"""What is said of a process that did not come back."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

MAX_WORDS: Final = 300
"""Characters of the last words that are kept."""

_ALLOCATION: Final = re.compile(r"memory allocation of \d+ bytes failed|MemoryError|std::bad_alloc")
_TELLING: Final = re.compile(
    r"^(Fatal Python error: .*|thread '.*' .*panicked.*|memory allocation of .*)$", re.M
)


@dataclass(frozen=True)
class Words:
    """Columns of an outcome; ``where`` None: the capture.

    Attributes:
        status: ``crashed`` or ``timeout``.
        error: Kind of the error.
        what: What happened.
        where: Last words of the process.
        hint: What to do.
        doubtful: Whether something else than the capture may be to blame.
    """

    status: str
    error: str
    what: str
    where: str | None
    hint: str
    doubtful: bool = False


def timed_out(seconds: float) -> Words:
    """Stopped by ``--timeout``."""
    return Words(
        "timeout",
        "Timeout",
        f"the analysis took longer than --timeout {seconds:g} seconds and was stopped",
        None,
        "give it more time: --retry-failed with a larger --timeout",
    )


def out_of_memory(limit_bytes: int) -> Words:
    """Stopped by ``--memory``."""
    return Words(
        "crashed",
        "OutOfMemory",
        f"the analysis needed more memory than --memory {limit_bytes >> 20} MiB and was stopped",
        None,
        "give it more: --retry-failed with a larger --memory",
    )


def died(code: int, words: str, *, oom_killer: bool) -> Words:
    """Ended by a signal or by itself.

    Args:
        code: As in ``subprocess.Popen.returncode``.
        words: What the process said.
        oom_killer: Whether the kernel's OOM killer was active meanwhile.
    """
    last = _last(words)
    if (code == -signal.SIGKILL and oom_killer) or _ALLOCATION.search(words):
        by = "the kernel's OOM killer ended it" if code == -signal.SIGKILL else "an allocation failed"
        return Words(
            "crashed",
            "OutOfMemory",
            f"the analysis ran out of memory: {by}",
            last,
            "run it on a machine with more memory, or with fewer --jobs: --retry-failed",
            doubtful=True,
        )
    if code == -signal.SIGKILL:
        what, hint = "was killed (SIGKILL), by whom is not known", "--retry-failed tries it again"
    else:
        what = f"died of {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
        hint = "this is a bug of replay or of a library: please report it, with the capture if you can"
    return Words("crashed", "Crash", f"the process {what}", last, hint, doubtful=True)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last(words: str) -> str | None:
    """The line that tells most; None: it said nothing."""
    telling = _TELLING.search(words)
    lines = words.strip().splitlines()
    line = telling.group() if telling else lines[-1] if lines else ""
    return line.strip()[:MAX_WORDS] or None
