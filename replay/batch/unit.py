"""One capture of a batch, from its bytes to its result folder. Runs in a worker's process."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from replay import pipeline
from replay.batch.fleet_rows import fleet_rows
from replay.batch.job import HASH_DIGITS, RESULT, Job, Outcome, error_fields, from_json, to_json
from replay.batch.memory import peak_bytes, reset_peak
from replay.batch.store import open_store
from replay.batch.urls import is_url, shown, url_to_fs
from replay.results import provenance
from reports.writer import write_into
from schemas.errors import CaptureError, InternalError, OutputError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from replay.batch.store import Store


@dataclass(frozen=True)
class Identity:
    """What the bytes of a capture say of it, whatever is in them.

    Attributes:
        sha256: SHA-256 of the file, in hexadecimal.
        size_bytes: Size of the file.
    """

    sha256: str
    size_bytes: int

    @property
    def folder(self) -> str:
        """Name of the result folder."""
        return self.sha256[:HASH_DIGITS]


def run(job: Job, tell: Callable[[Identity], None]) -> Outcome:
    """Analyse a capture and keep the result, or say why not; raises nothing that the capture causes.

    Args:
        job: What to do.
        tell: Called as soon as the capture's bytes are known, before anything is done with them.
    """
    started = time.perf_counter()
    measured = reset_peak()
    name = shown(job.path)
    identity = None
    try:
        with _scratch(job) as scratch, _local(job.path, scratch) as path:
            identity = identify(path, name)
            tell(identity)
            store = open_store(job.out)
            kept = _kept(store, identity, job)
            if kept is not None:
                return replace(kept, path=name)
            outcome = Outcome(name, "ok", sha256=identity.sha256, size_bytes=identity.size_bytes)
            folder = scratch / "result"
            folder.mkdir()
            try:
                tables = _tables(job, path)
            except ReplayError as error:
                outcome = replace(outcome, status="failed", **error_fields(error))
            else:
                _write(folder, tables, f"{shown(job.out).rstrip('/')}/{identity.folder}")
                outcome = replace(outcome, result=identity.folder, **_verdict(tables))
            outcome = replace(
                outcome,
                seconds=round(time.perf_counter() - started, 3),
                peak_bytes=peak_bytes() if measured else None,
            )
            keep(store, folder, identity, outcome, job)
            return outcome
    except ReplayError as error:
        return Outcome(
            name,
            "failed",
            sha256=None if identity is None else identity.sha256,
            size_bytes=None if identity is None else identity.size_bytes,
            **error_fields(error),
            seconds=round(time.perf_counter() - started, 3),
        )


def keep(store: Store, folder: Path, identity: Identity, outcome: Outcome, job: Job) -> None:
    """Finish a result folder with ``result.json`` and put it where it belongs.

    Raises:
        OutputError: It cannot be put there.
    """
    (folder / RESULT).write_text(to_json(outcome, job.options), encoding="utf-8")
    store.publish(folder, identity.folder)


def identify(path: Path, name: str) -> Identity:
    """Hash a file.

    Raises:
        CaptureError: It cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise CaptureError(
                "this is not a file", path=name, expected="a capture file", hint="name files, or a folder"
            )
        with path.open("rb") as file:
            return Identity(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
    except OSError as error:
        raise CaptureError(
            "the capture cannot be opened",
            path=name,
            found=error.strerror or str(error),
            hint="check the name and the permissions",
        ) from error


def _tables(job: Job, path: Path) -> dict[str, pa.Table]:
    """The result tables, those of the fleet among them.

    Raises:
        ReplayError: What is wrong with the capture, or with replay.
    """
    name = shown(job.path)
    try:
        tables = pipeline.analyze(path, job.options).tables
        tables["capture"] = _named(tables["capture"], name)
        tables.update(fleet_rows(tables))
    except CaptureError as error:
        error.where = error.where.replace(str(path), name)
        raise
    except (ReplayError, MemoryError):
        raise
    except Exception as error:
        raise InternalError(error) from error
    command = ["replay", "analyze", name]
    for strategy in job.options.strategies:
        command += ["--strategy", strategy]
    return provenance.stamp(tables, command)


def _write(folder: Path, tables: Mapping[str, pa.Table], shown_folder: str) -> None:
    try:
        write_into(folder, tables, shown=shown_folder)
    except OSError as error:
        raise _cannot_write(error, folder) from error


def _cannot_write(error: OSError, path: str | Path) -> OutputError:
    return OutputError(
        f"cannot write the result: {error.strerror or error}",
        path=path,
        hint="free some space, or see that every worker has this folder; the same command continues",
    )


def _verdict(tables: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Status, and the columns that go with it."""
    (capture,) = tables["capture"].to_pylist()
    whole = capture["events_lost"] == 0 and not capture["truncated"]
    return {
        "status": "ok" if whole else "partial",
        "events": capture["events"],
        "events_lost": capture["events_lost"],
    }


def _named(capture: pa.Table, name: str) -> pa.Table:
    """Table ``capture`` with the name that the user knows the file by."""
    place = capture.schema.get_field_index("path")
    return capture.set_column(place, capture.schema.field(place), pa.array([name]))


def _kept(store: Store, identity: Identity, job: Job) -> Outcome | None:
    """The outcome that is there and still holds; None: there is none.

    Raises:
        OutputError: The result is of another capture, whose hash begins with the same digits.
    """
    text = None if job.force else store.read(f"{identity.folder}/{RESULT}")
    kept = None if text is None else from_json(text, job.options)
    if kept is None or (kept.failed and job.retry_failed):
        return None
    if kept.sha256 != identity.sha256:
        raise OutputError(
            f"{kept.path} has a hash that begins with the same {HASH_DIGITS} digits",
            path=f"{job.out}/{identity.folder}",
            hint="give one of the two captures a batch of its own, with another -o",
        )
    return kept


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """A folder for unfinished work, gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(dir=job.scratch, prefix="unit-"))
    except OSError as error:
        raise _cannot_write(error, job.scratch or tempfile.gettempdir()) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _local(path: str, scratch: Path) -> Iterator[Path]:
    """The capture as a local file; a remote one is fetched first: reading it needs random access."""
    if not is_url(path):
        yield Path(path)
        return
    filesystem, remote = url_to_fs(path)
    copy = scratch / (remote.rpartition("/")[2] or "capture")
    try:
        filesystem.get_file(remote, str(copy))
    except Exception as error:  # every fsspec package raises its own
        raise CaptureError(
            "the capture cannot be fetched",
            path=shown(path),
            found=f"{type(error).__name__}: {error}",
            hint="check the URL and the credentials",
        ) from error
    yield copy
