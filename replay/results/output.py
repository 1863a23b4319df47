"""Where results go, and when an existing folder may be replaced; checked before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import OutputError

RESULT_MARK = "summary.json"
"""File that every result folder has: what is replaced with --force must have it."""


def default_folder(capture: Path) -> Path:
    """``NAME.replay`` in the current directory, NAME being the capture's file name."""
    return Path(f"{capture.name}.replay")


def check_folder(folder: Path, *, force: bool) -> None:
    """See that a result folder can be made at ``folder``.

    Args:
        folder: Folder that the results will be in; does not have to exist, its parent does.
        force: An existing result folder may be replaced. Any other file or folder never is.

    Raises:
        OutputError: It exists, or could not be made.
    """
    if os.path.lexists(folder):
        if not force:
            raise OutputError(
                f"will not overwrite without --force: {folder}",
                path=folder.absolute(),
                hint="give another folder with -o, or --force to replace this one",
            )
        if not (folder / RESULT_MARK).is_file() and not _is_empty_folder(folder):
            raise OutputError(
                f"will not replace what replay did not write: {folder}",
                path=folder.absolute(),
                hint=f"a result folder holds {RESULT_MARK}, this does not; give another folder with -o",
            )
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise OutputError(
            "no such folder to write into", path=parent, hint="make it, or give another folder with -o"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            "no permission to write into this folder", path=parent, hint="give another folder with -o"
        )


def _is_empty_folder(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
