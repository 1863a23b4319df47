"""The commands ``replay batch`` and ``replay fleet`` without their options: what the parts do together."""

from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from replay.batch import fleet
from replay.batch.cluster import cluster
from replay.batch.inputs import captures, share
from replay.batch.progress import Progress
from replay.batch.store import open_store
from replay.batch.urls import is_url, shown
from replay.batch.whole import run_batch
from replay.batch.work import scratch_folder
from reports.fleet import documents
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.batch.whole import BatchOptions, BatchResult
    from reports.fleet.facts import FleetFacts

_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(i?B)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def batch(
    inputs: Sequence[str],
    files_from: str | None,
    out: str,
    options: BatchOptions,
    scheduler: str | None = None,
) -> tuple[BatchResult, FleetFacts | None]:
    """Analyse the captures, then put their results together.

    Args:
        inputs: Paths, globs, folders, URLs.
        files_from: File with more of them, or ``-``; None: there is none.
        out: Folder (or URL) of the batch.
        options: What is asked for.
        scheduler: Address of a dask scheduler, whose workers find the captures and ``out`` under the same
            absolute paths; None: this machine.

    Returns:
        What became of the captures, and what the fleet's documents say; None: they were not written, because
        the batch was stopped, or did a share of the captures only.
    """
    paths = share(captures(inputs, files_from), options.shard)
    if scheduler is not None:
        paths, out = [_everywhere(path) for path in paths], _everywhere(out)
    with ExitStack() as stack:
        executor, slots = (None, None) if scheduler is None else stack.enter_context(cluster(scheduler))
        result = run_batch(paths, out, options, executor=executor, slots=slots, progress=Progress)
    if result.signal is not None or options.shard is not None:
        return result, None
    return result, _put_together(result, out)


def read_fleet(out: str) -> FleetFacts:
    """What the documents of a fleet say, from its datasets.

    Raises:
        UsageError: ``out`` is not the folder of a batch.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        return documents.facts_of(fleet.open_fleet(open_store(out), Path(scratch), shown(out)))


def ask_fleet(out: str, sql: str, form: str) -> str:
    """The answer to an SQL query over the datasets of a fleet.

    Args:
        out: Folder (or URL) of the batch.
        sql: The query.
        form: ``text`` (columns of at most 50 characters), ``md`` or ``json`` (a list of objects).

    Raises:
        UsageError: ``out`` is not the folder of a batch, or the query is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as scratch:
        frame = fleet.query(fleet.open_fleet(open_store(out), Path(scratch), shown(out)), sql)
    if form == "json":
        return f"{frame.write_json()}\n"
    formatting: Any = "ASCII_MARKDOWN" if form == "md" else "ASCII_BORDERS_ONLY_CONDENSED"
    with pl.Config(
        tbl_formatting=formatting,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=10_000,
        fmt_str_lengths=50 if form == "text" else 1000,
    ):
        return f"{frame}\n"


def memory_bytes(text: str) -> int:
    """Bytes of a size such as ``512M`` or ``2GiB``; a letter is a power of 1024.

    Raises:
        UsageError: It is no such size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise UsageError(
            f"{text!r} is not a size of memory", where="--memory SIZE", hint="for example 512M or 2G"
        )
    return int(match[1]) * int(1024 ** _POWERS[match[2].upper()])


def failures(result: BatchResult, most: int) -> str:
    """The captures that failed, a line each; not more than ``most`` of them."""
    failed = [outcome for outcome in result.outcomes if outcome.failed]
    lines = [f"{outcome.status}: {outcome.path}: {outcome.what}\n" for outcome in failed[:most]]
    if len(failed) > most:
        lines.append(f"and {len(failed) - most:,} more, all of them in {result.manifest}\n")
    return "".join(lines)


def render(facts: FleetFacts, out: str, form: str) -> str:
    """What the documents of a fleet say, for stdout.

    Args:
        facts: What is said.
        out: Folder (or URL) of the batch.
        form: ``text``, ``md`` (the text as one block) or ``json``.
    """
    if form == "json":
        return documents.render_json(facts)
    text = documents.render_text(facts, shown=shown(out).rstrip("/"))
    return f"```text\n{text}```\n" if form == "md" else text


def _everywhere(path: str) -> str:
    """A name that does not depend on the current directory."""
    return path if is_url(path) else str(Path(path).absolute())


def _put_together(result: BatchResult, out: str) -> FleetFacts:
    """Make datasets and documents of the fleet."""
    store = open_store(out)
    with scratch_folder(out) as scratch:
        fleet.collect(result.outcomes, store, scratch)
        frames = fleet.open_fleet(store, scratch / "read", shown(out))
        facts = documents.facts_of(frames)
        documents.write_documents(facts, scratch, shown=shown(out).rstrip("/"))
        for name in documents.DOCUMENTS:
            store.publish(scratch / name, name)
    return facts
