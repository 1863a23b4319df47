"""Imported into worker processes by tests of the batch: captures do what their names say.

The product has no hook for that: tests put ``import tests.mischief`` before the program of a worker.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable


def hog(_: Path) -> None:
    """Take 1.5 GiB, and keep them until somebody stops it."""
    kept = [bytearray(os.urandom(1 << 20) * 64) for _ in range(24)]
    time.sleep(600)
    del kept


def out_of_memory(_: Path) -> None:
    raise MemoryError


def abort(_: Path) -> None:
    """What a Rust library does when malloc() gives nothing."""
    sys.stderr.write("memory allocation of 123456789 bytes failed\n")
    sys.stderr.flush()
    os.abort()


def killed_beside_others(path: Path) -> None:
    """Die the first time, live the second time."""
    mark = path.with_suffix(".seen")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


ACTS: dict[str, Callable[[Path], object]] = {
    "segfault": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda _: os._exit(7),
    "sleep": lambda _: time.sleep(600),
    "hog": hog,
    "memoryerror": out_of_memory,
    "abort": abort,
    "unlucky": killed_beside_others,
    "bug": lambda _: {}["nothing"],
}

_analyze = pipeline.analyze


def analyze(path: Any, options: Any = None) -> pipeline.Analysis:
    act = ACTS.get(Path(path).stem)
    if act is not None:
        act(Path(path))
    return _analyze(path, options)


pipeline.analyze = analyze
