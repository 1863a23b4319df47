"""The folder for unfinished work inside the folder of a batch; leftovers of runs that died are removed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.batch.urls import is_url
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

WORK: Final = ".batch"
"""Its name; a folder that has it is the folder of a batch."""


@contextmanager
def scratch_folder(out: str) -> Iterator[Path]:
    """A folder for unfinished work: inside ``out``, so that results can be renamed, unless that is a URL.

    Args:
        out: Folder or URL of the batch.

    Raises:
        OutputError: ``out`` is something else than the folder of a batch, or cannot be written.
    """
    if is_url(out):
        with tempfile.TemporaryDirectory(prefix="replay-") as folder:
            yield Path(folder)
    else:
        with _work_folder(Path(out)) as own:
            yield own


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """Make the folder of a batch, if need be, and a folder in it for the unfinished work of this run.

    Each run holds a lock on its own, so that what others leave behind can be told from what they work on.
    """
    try:
        if out.is_dir() and any(out.iterdir()) and not (out / WORK).is_dir():
            raise OutputError(
                f"will not write into what is not the folder of a batch: {out}",
                path=out.absolute(),
                hint="give a new or empty folder with -o",
            )
        (out / WORK).mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out / WORK)
        own = out / WORK / secrets.token_hex(6)
        descriptor = _locked(own.with_suffix(".lock"))
    except OSError as error:
        raise OutputError(
            f"cannot write there: {error.strerror or error}", path=out, hint="give another folder with -o"
        ) from error
    try:
        own.mkdir()
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        own.with_suffix(".lock").unlink(missing_ok=True)
        os.close(descriptor)


def _locked(lock: Path) -> int:
    """Make a lock file; it has its name only when it is locked, so nobody takes it for a leftover."""
    unnamed = lock.with_suffix(".new")
    descriptor = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(lock)
    return descriptor


def _remove_leftovers(work: Path) -> None:
    """Remove the folders of runs that hold their lock no more."""
    for lock in work.glob("*.lock"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
