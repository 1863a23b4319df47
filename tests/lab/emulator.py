"""QEMU for the lab: the installed one, or a newer one from Debian's backports where that computes wrongly.

QEMU 7.2 (Debian 12) leaves out the index of an AVX2 gather when it is in ymm4: the number that an ordinary
address has for "no index". numpy's argsort and polars' groups use such gathers, and give wrong results in a
guest. QEMU 10 is right.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.lab import debian

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "qemu-system-x86_64"
NEEDED = 10
"""Major version from which on guests are known to compute rightly."""


def emulator(folder: Path) -> str:
    """A QEMU that is new enough; its firmware is that of the installed one.

    Args:
        folder: Where to keep it.
    """
    if shutil.which(PROGRAM) is None:
        raise FileNotFoundError(f"no {PROGRAM}: install qemu-system-x86")
    if _major(PROGRAM) >= NEEDED:
        return PROGRAM
    program = folder / "usr" / "bin" / PROGRAM
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        debian.fetch("qemu-system-x86", debian.suite(f"{release}-backports", folder), folder)
    return str(program)


def _major(program: str) -> int:
    printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"version (\d+)", printed)[0])
