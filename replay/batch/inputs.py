"""Which captures a batch is about: paths, quoted globs, folders, lists of names, URLs."""

from __future__ import annotations

import fnmatch
import glob
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.batch.urls import is_url, shown, url_to_fs
from replay.batch.work import WORK
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES: Final = ("*.dat", "*.data")
"""Files of a folder that are taken for captures, also with one of `PACKINGS` behind the name."""

PACKINGS: Final = ("", ".xz", ".gz", ".zst")


def captures(inputs: Sequence[str], files_from: str | None = None) -> list[str]:
    """The captures that the inputs name, each once, in the order of the inputs; those of one input sorted.

    A name that is no file, folder or glob stays as it is: that it cannot be opened is its own failure.

    Args:
        inputs: Paths, globs (``**``: any depth), folders, URLs of them.
        files_from: File with more inputs, one a line, or ending in NUL where there is a NUL; ``-``: stdin.

    Raises:
        UsageError: There is no capture, a glob or a folder has none, or ``files_from`` cannot be read.
    """
    names = list(inputs)
    if files_from is not None:
        names += _listed(files_from)
    found = [path for name in names for path in (_remote(name) if is_url(name) else _local(name))]
    if not found:
        raise UsageError(
            "no capture is named",
            where=files_from or "replay batch INPUT...",
            hint="give captures, folders, quoted globs, or --files-from FILE",
        )
    return list(dict.fromkeys(found))


def share(paths: Sequence[str], shard: str | None) -> list[str]:
    """Every N-th capture, for one of N runs that divide the work.

    Args:
        paths: All captures.
        shard: ``I/N``, I from 1 to N; None: all.

    Raises:
        UsageError: It is not of that form.
    """
    if shard is None:
        return list(paths)
    number, slash, of = shard.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(
            f"{shard!r} is not a share of the captures",
            where="--shard I/N",
            hint="I is from 1 to N: --shard 3/16 takes every 16th capture, from the third on",
        )
    return list(paths[int(number) - 1 :: int(of)])


def _listed(name: str) -> list[str]:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the list of captures cannot be read: {error.strerror or error}",
            where=f"--files-from {name}",
            hint="name a file with one capture a line, or - for stdin",
        ) from error
    parts = raw.split(b"\0") if b"\0" in raw else raw.splitlines()
    return [os.fsdecode(part) for part in parts if part]


def _local(name: str) -> list[str]:
    if Path(name).is_dir():
        return _some(_below(name), name, "folder")
    if glob.has_magic(name) and not os.path.lexists(name):
        files = (path for path in glob.glob(name, recursive=True) if not Path(path).is_dir())  # noqa: PTH207
        return _some(files, name, "glob")
    return [name]


def _below(folder: str) -> Iterable[str]:
    """Files at any depth that look like captures; result folders and hidden folders are left out."""
    for where, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".") and not one.endswith(".replay")]
        if (Path(where) / WORK).is_dir():
            folders.clear()
            continue
        yield from (str(Path(where) / name) for name in files if _looks_like_capture(name))


def _remote(url: str) -> list[str]:
    filesystem, path = url_to_fs(url)
    if glob.has_magic(path):
        found = filesystem.glob(path)
    elif filesystem.isdir(path):
        found = [name for name in filesystem.find(path) if _looks_like_capture(name.rpartition("/")[2])]
    else:
        return [url]
    return _some((filesystem.unstrip_protocol(name) for name in found), shown(url), "URL")


def _looks_like_capture(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, kind + packing) for kind in NAMES for packing in PACKINGS)


def _some(found: Iterable[str], name: str, kind: str) -> list[str]:
    paths = sorted(found)
    if not paths:
        raise UsageError(
            f"the {kind} has no captures",
            where=name,
            hint=f"in folders {' and '.join(NAMES)} are looked for, packed or not; name others by a glob",
        )
    return paths
