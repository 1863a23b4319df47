"""Packages of Debian for the lab: from the mirror that apt is configured with, unpacked, not installed."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def suite(name: str, folder: Path) -> list[str]:
    """Options with which apt sees one more suite of the mirror; what it needs for that is in ``folder``.

    Args:
        name: The suite, as ``trixie-backports``.
        folder: A folder of the lab.
    """
    listed = _output("apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)")
    mirror = re.findall(r"^(\S+) Debian Debian$", listed, re.MULTILINE)[0]
    folder = folder.resolve()  # apt takes what is relative from its own root
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror} {name} main\n")
    options = [
        f"-oDir::Etc::SourceList={folder / 'sources.list'}",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={folder / 'lists'}",
        f"-oDir::Cache={folder}",
        "-oAPT::Sandbox::User=root",
    ]
    subprocess.run(["apt-get", *options, "--quiet", "--quiet", "update"], check=True)
    return options


def names(pattern: str, options: list[str]) -> list[str]:
    """Packages whose name matches the pattern."""
    listed = _output("apt-cache", *options, "search", "--names-only", pattern)
    return [line.split()[0] for line in listed.splitlines()]


def fetch(package: str, options: list[str], folder: Path) -> None:
    """Download a package into ``folder``, and unpack it there."""
    subprocess.run(
        ["apt-get", *options, "-oAPT::Sandbox::User=root", "--quiet", "--quiet", "download", package],
        cwd=folder,
        check=True,
    )
    for deb in folder.glob("*.deb"):
        unpack(deb, folder)


def unpack(deb: Path, folder: Path) -> None:
    """The files of a package."""
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
