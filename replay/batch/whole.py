"""Many captures, one result folder each: nothing lost, whatever happens to one of them or to the run.

The state of a batch is in its folder only: a result folder is whole or not there, and says of what bytes, by
what version and with what options it is. So every run, however the last one ended, does what is left to do.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from replay.batch import manifest as manifests
from replay.batch.job import Job, Limits
from replay.batch.process import WORKERS
from replay.batch.run import Run, Stop
from replay.batch.store import open_store
from replay.batch.urls import is_url, shown
from replay.batch.work import scratch_folder
from replay.options import AnalyzeOptions
from replay.walks.chosen import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor
    from types import FrameType

    from replay.batch.job import Outcome
    from replay.batch.progress import Progress


@dataclass(frozen=True)
class BatchOptions:
    """What a batch is asked for.

    Attributes:
        analyze: Options of each analysis.
        limits: What one capture may take.
        jobs: Captures that are analysed at a time; None: one for each CPU that this process may use.
        force: Analyse all captures again.
        retry_failed: Analyse those again that failed.
        shard: This run does a share of the captures, as ``I/N`` (it is in the names of its manifest).
    """

    analyze: AnalyzeOptions = field(default_factory=AnalyzeOptions)
    limits: Limits = field(default_factory=Limits)
    jobs: int | None = None
    force: bool = False
    retry_failed: bool = False
    shard: str | None = None


@dataclass(frozen=True)
class BatchResult:
    """What became of the captures.

    Attributes:
        outcomes: In the order of the captures.
        manifest: Where the table is.
        signal: The signal that stopped the batch; None: it ran to its end.
    """

    outcomes: Sequence[Outcome]
    manifest: str
    signal: int | None


def run_batch(
    captures: Sequence[str],
    out: str,
    options: BatchOptions,
    *,
    executor: Executor | None = None,
    slots: int | None = None,
    progress: Callable[[int, int], Progress] | None = None,
) -> BatchResult:
    """Analyse captures into the folder ``out`` and write the manifest there.

    A process runs one batch at a time. SIGINT and SIGTERM stop it with the manifest written (in the main
    thread only); a second one acts at once.

    Args:
        captures: Paths and URLs, each once (``batch.inputs.captures``).
        out: Folder of the batch, made if need be; or a URL for fsspec.
        options: What is asked for.
        executor: Runs ``run_isolated``; its workers see ``out``. None: threads of this process, and then an
            analysis has as many threads as there are CPUs for each job. With an executor it has one; the
            variable POLARS_MAX_THREADS of its workers comes first.
        slots: How many captures ``executor`` does at a time.
        progress: Makes the display from the number of captures and their bytes; None: there is none.

    Raises:
        UsageError: A strategy is not known.
        OutputError: ``out`` is something else, or cannot be written.
    """
    chosen(options.analyze.strategies)
    cpus = len(os.sched_getaffinity(0))
    jobs = slots or options.jobs or cpus
    limits = replace(options.limits, threads=max(1, cpus // jobs) if executor is None else 1)
    local = ThreadPoolExecutor(jobs, thread_name_prefix="replay-batch")  # starts no thread before it is used
    WORKERS.start()
    try:
        with scratch_folder(out) as scratch, _signals() as stop:
            shared = None if is_url(out) else str(scratch)
            base = Job("", out, shared, options.analyze, limits, options.force, options.retry_failed)
            run = Run(base, captures, stop, progress)
            try:
                run.work(executor or local, jobs)
            finally:
                outcomes = run.finished()
                suffix = f"-{options.shard.replace('/', '-of-')}" if options.shard else ""
                name = manifests.write(outcomes, open_store(out), scratch, suffix=suffix)
    finally:
        WORKERS.stop()
        local.shutdown(cancel_futures=True)
    return BatchResult(outcomes, f"{shown(out).rstrip('/')}/{name}", stop.signal)


@contextmanager
def _signals() -> Iterator[Stop]:
    """Notice SIGINT and SIGTERM instead of dying of them; the second one acts as it did before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        stop.signal = number
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
