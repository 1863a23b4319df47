"""Where a batch keeps its results: a folder, or a place that fsspec reaches.

A result is whole or not there. In a folder it is made elsewhere and renamed; an object store has no rename:
there ``result.json`` is written last, and a result without it does not count.
"""

from __future__ import annotations

import os
import secrets
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from replay.batch.job import RESULT
from replay.batch.urls import is_url, shown, url_to_fs
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Store(Protocol):
    """The folder of a batch."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None: there is none."""
        ...

    def publish(self, fresh: Path, name: str) -> None:
        """Let the local folder or file ``fresh`` take the place of ``name``; ``fresh`` is gone after that."""
        ...

    def local(self, names: Iterable[str], scratch: Path) -> list[Path]:
        """Local paths of files, in the same order; those of other places are copied into ``scratch``."""
        ...

    def below(self, folder: str) -> list[str]:
        """Names of all files at any depth of a folder, with its own name before them, sorted."""
        ...


def open_store(out: str) -> Store:
    """The store for a folder or a URL."""
    return RemoteStore(out) if is_url(out) else FolderStore(Path(out))


class FolderStore:
    """A folder on a filesystem that every worker sees."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes | None:
        """As in ``Store``."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def publish(self, fresh: Path, name: str) -> None:
        """As in ``Store``; ``fresh`` is on the same filesystem.

        Raises:
            OutputError: It cannot be put there.
        """
        target = self.root / name
        old = fresh.with_name(f"old-{secrets.token_hex(6)}")
        try:
            if fresh.is_dir():
                _rename_folder(fresh, target, old)
            else:
                fresh.replace(target)
        except OSError as error:
            raise OutputError(
                f"cannot write the result: {error.strerror or error}",
                path=target,
                hint="free some space, or see who else writes there; the same command continues",
            ) from error
        finally:
            shutil.rmtree(old, ignore_errors=True)

    def local(self, names: Iterable[str], scratch: Path) -> list[Path]:
        """As in ``Store``."""
        return [self.root / name for name in names]

    def below(self, folder: str) -> list[str]:
        """As in ``Store``."""
        found = (self.root / folder).rglob("*")
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())


class RemoteStore:
    """A place that fsspec reaches, such as ``s3://bucket/fleet``."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The filesystem, and the root as it names it."""
        filesystem, root = url_to_fs(self.url)
        return filesystem, root.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """As in ``Store``."""
        filesystem, root = self._place
        try:
            return bytes(filesystem.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None

    def publish(self, fresh: Path, name: str) -> None:
        """As in ``Store``; what was there is removed first, and ``result.json`` comes last.

        Raises:
            OutputError: It cannot be put there.
        """
        filesystem, root = self._place
        target = f"{root}/{name}"
        try:
            if fresh.is_dir():
                if filesystem.exists(target):
                    if filesystem.exists(f"{target}/{RESULT}"):
                        filesystem.rm_file(f"{target}/{RESULT}")
                    filesystem.rm(target, recursive=True)
                files = sorted(path for path in fresh.rglob("*") if path.is_file() and path.name != RESULT)
                last = [path for path in (fresh / RESULT,) if path.is_file()]
                for path in [*files, *last]:
                    place = f"{target}/{path.relative_to(fresh).as_posix()}"
                    filesystem.makedirs(place.rpartition("/")[0], exist_ok=True)
                    filesystem.put_file(str(path), place)
                shutil.rmtree(fresh)
            else:
                filesystem.makedirs(root, exist_ok=True)
                filesystem.put_file(str(fresh), target)
                fresh.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write the result: {error}",
                path=shown(f"{self.url}/{name}"),
                hint="check the permissions there; the same command continues",
            ) from error

    def local(self, names: Iterable[str], scratch: Path) -> list[Path]:
        """As in ``Store``."""
        filesystem, root = self._place
        names = list(names)
        paths = [scratch / name for name in names]
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
        if names:
            filesystem.get([f"{root}/{name}" for name in names], [str(path) for path in paths])
        return paths

    def below(self, folder: str) -> list[str]:
        """As in ``Store``."""
        filesystem, root = self._place
        return sorted(name.removeprefix(f"{root}/") for name in filesystem.find(f"{root}/{folder}"))


def _rename_folder(fresh: Path, target: Path, old: Path) -> None:
    """Rename, moving away what is there; another run that does the same at this moment may win."""
    for _ in range(10):
        try:
            fresh.rename(target)
            return
        except OSError:
            if not os.path.lexists(target):
                raise
        try:
            target.rename(old)
        except FileNotFoundError:
            continue
        shutil.rmtree(old)
    fresh.rename(target)
