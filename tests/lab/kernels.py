"""Kernels for the lab, from Debian's packages."""

from __future__ import annotations

import re
from pathlib import Path

from tests.lab import debian

SUITES = {"6.12": "", "7.3": "trixie-backports"}
"""Where each kernel is: empty for the suites that apt is configured with."""

PACKAGES = ("linux-binary", "linux-image")
"""Packages that hold vmlinuz: from 6.19 on one of its own, before that the one that dpkg installs."""


def kernel(name: str, folder: Path) -> Path:
    """The vmlinuz of a kernel.

    Args:
        name: ``6.12``: the newest cloud kernel of that version; or a path to a package or a vmlinuz.
        folder: Where to keep it.
    """
    if "/" in name:
        path = Path(name)
        if path.suffix != ".deb":
            return path
        debian.unpack(path, folder / path.stem)
        return _vmlinuz(folder / path.stem)[0]
    folder = folder / name
    if not _vmlinuz(folder):
        folder.mkdir(parents=True, exist_ok=True)
        options = debian.suite(SUITES[name], folder) if SUITES.get(name) else []
        debian.fetch(_package(name, options), options, folder)
    return _vmlinuz(folder)[0]


def _vmlinuz(folder: Path) -> list[Path]:
    return sorted(folder.glob("**/vmlinuz*"))


def _package(version: str, options: list[str]) -> str:
    """The newest package that holds a cloud kernel of that version."""
    for package in PACKAGES:
        found = debian.names(rf"^{package}-{re.escape(version)}\..*-cloud-amd64$", options)
        if found:
            return max(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    raise LookupError(
        f"apt knows no cloud kernel {version}: run apt-get update, or name a package or a vmlinuz"
    )
