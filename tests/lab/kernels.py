"""Kernels for the lab, from Debian's packages: the mirror that apt is configured with, and its backports.

apt keeps what it needs for that in a folder of the lab; nothing is installed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SUITES = {"6.12": "", "7.3": "trixie-backports"}
"""Where each kernel is: empty for the suites that apt is configured with."""

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

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
        return _unpacked(path, folder / path.stem) if path.suffix == ".deb" else path
    folder = folder / name
    found = sorted(folder.glob("**/vmlinuz*"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    options = _suite(SUITES[name], folder) if SUITES.get(name) else []
    package = _package(name, options)
    subprocess.run(["apt-get", *options, "--quiet", "download", package], cwd=folder, check=True)
    (deb,) = folder.glob("*.deb")
    return _unpacked(deb, folder)


def _suite(suite: str, folder: Path) -> list[str]:
    """Options with which apt sees one more suite of the Debian mirror that it is configured with."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    mirror = re.findall(r"^(\S+) Debian Debian$", targets, re.MULTILINE)[0]
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror} {suite} main\n")
    options = [
        f"-oDir::Etc::SourceList={folder / 'sources.list'}",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={folder / 'lists'}",
        f"-oDir::Cache={folder}",
    ]
    subprocess.run(["apt-get", *options, "--quiet", "update"], check=True)
    return options


def _package(version: str, options: list[str]) -> str:
    """The newest package that holds a cloud kernel of that version."""
    for package in PACKAGES:
        pattern = rf"^{package}-{re.escape(version)}\..*-cloud-amd64$"
        listed = subprocess.run(
            ["apt-cache", *options, "search", "--names-only", pattern],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        names = [line.split()[0] for line in listed.splitlines()]
        if names:
            return max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    raise LookupError(
        f"apt knows no cloud kernel {version}: run apt-get update, or name a package or a vmlinuz"
    )


def _unpacked(deb: Path, folder: Path) -> Path:
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
    return next(iter(sorted(folder.glob("**/vmlinuz*"))))
