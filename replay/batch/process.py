"""Isolation: a capture is analysed in another process, which may die without hurting another capture.

``run_isolated`` is what executors call: in threads of ``replay batch`` itself, or of a dask worker. It takes
an idle worker process (started anew, never forked: polars in a forked process deadlocks), hands it the job,
watches time and memory, and says what became of it. A process serves one capture at a time, so it is always
known which one it died of.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay import __version__
from replay.batch.job import RESULT, Outcome, to_json
from replay.batch.memory import anonymous_bytes, oom_kills, peak_bytes
from replay.batch.store import open_store
from replay.batch.urls import shown
from replay.batch.words import died, out_of_memory, timed_out
from replay.batch.worker import READY
from schemas.errors import UsageError

if TYPE_CHECKING:
    from replay.batch.job import Job
    from replay.batch.unit import Identity
    from replay.batch.words import Words

START: Final = "import sys; sys.path[:] = {path!r}; from replay.batch.worker import main; main({descriptor})"
"""Program of a process: it finds the same modules as this one."""

START_SECONDS: Final = 120
"""Time for a process to import what it needs."""

END_SECONDS: Final = 30
"""Time for a process that has closed its socket to end; the kernel writes a core dump meanwhile."""

WATCH_SECONDS: Final = 0.05
"""Time between two looks at the memory of a process."""

TIRED_BYTES: Final = 1 << 30
"""A process that keeps more than this after a capture is replaced, so that the next one has room."""

_THREAD_VARIABLES: Final = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


class Worker:
    """One process.

    Attributes:
        threads: Threads that polars has in it.
        pid: Its id.
    """

    def __init__(self, threads: int) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: It cannot import replay.
        """
        self.threads = threads
        self._stopped = False
        ours, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environment = {name: os.environ.get(name, str(threads)) for name in _THREAD_VARIABLES}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START.format(path=sys.path, descriptor=theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the batch, which then ends the process
            )
        self.pid = self._process.pid
        self._connection = Connection(ours.detach())
        ready = False
        with contextlib.suppress(EOFError, OSError):
            ready = self._connection.poll(START_SECONDS) and self._connection.recv() == READY
        if not ready:
            words = self._end()
            self.close()
            raise RuntimeError(f"a worker process cannot start: {words}")

    def run(self, job: Job) -> Outcome:
        """Do a job; the process may be gone afterwards."""
        self._words.seek(0)
        self._words.truncate()
        kills = oom_kills()
        started = time.monotonic()
        identity = None
        words = None
        peak = None
        try:
            self._connection.send(job)
            while words is None:
                if self._connection.poll(self._patience(job, started)):
                    message = self._connection.recv()
                    if isinstance(message, Outcome):
                        return message
                    identity = message
                    continue
                peak = peak_bytes(self.pid)
                words = self._over(job, started)
            self.close()
        except (EOFError, OSError):
            said = self._end()
            self.close()
            if self._stopped:
                return Outcome(shown(job.path), "skipped")
            killed = kills is not None and (oom_kills() or 0) > kills
            words = died(self._process.returncode, said, oom_killer=killed)
            peak = None
        return self._buried(job, identity, words, time.monotonic() - started, peak)

    @property
    def usable(self) -> bool:
        """Whether another capture may be given to it."""
        kept = anonymous_bytes(self.pid) if self._process.poll() is None else None
        return kept is not None and kept <= TIRED_BYTES

    def kill(self) -> None:
        """End the process at once; a ``run`` that waits for it returns that the capture is skipped."""
        self._stopped = True
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._words.close()

    def _end(self) -> str:
        """Wait for a process that ends by itself.

        Returns:
            What it said on stdout and stderr since it was given its job; the last 64 kB of it.
        """
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - (1 << 16)))
        return self._words.read().decode(errors="replace")

    def _patience(self, job: Job, started: float) -> float | None:
        """How long to wait before the next look at the process; None: until it says something."""
        waits = []
        if job.limits.seconds is not None:
            waits.append(max(0.0, started + job.limits.seconds - time.monotonic()))
        if job.limits.memory_bytes is not None:
            waits.append(WATCH_SECONDS)
        return min(waits, default=None)

    def _over(self, job: Job, started: float) -> Words | None:
        """What the process has too much of; None: nothing."""
        limits = job.limits
        if limits.seconds is not None and time.monotonic() - started >= limits.seconds:
            return timed_out(limits.seconds)
        if limits.memory_bytes is not None:
            used = anonymous_bytes(self.pid)
            if used is not None and used > limits.memory_bytes:
                return out_of_memory(limits.memory_bytes)
        return None

    def _buried(
        self, job: Job, identity: Identity | None, words: Words, seconds: float, peak: int | None
    ) -> Outcome:
        """The outcome of a capture that the process did not survive; kept, unless it is to be tried again."""
        outcome = Outcome(
            shown(job.path),
            words.status,
            error=words.error,
            what=words.what,
            where=words.where or shown(job.path),
            hint=words.hint,
            seconds=round(seconds, 3),
            peak_bytes=peak,
        )
        if words.doubtful and not job.alone:
            return replace(outcome, again=True)
        if identity is None:
            return outcome
        outcome = replace(outcome, sha256=identity.sha256, size_bytes=identity.size_bytes)
        folder = Path(tempfile.mkdtemp(dir=job.scratch, prefix="unit-"))
        (folder / RESULT).write_text(to_json(outcome, job.options), encoding="utf-8")
        open_store(job.out).publish(folder, identity.folder)
        return outcome


class Workers:
    """The processes of this process: idle ones wait to be used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._stopped = False

    def run(self, job: Job) -> Outcome:
        """Do a job in an idle process, or in a new one."""
        worker = self._take(job.limits.threads)
        if worker is None:
            return Outcome(shown(job.path), "skipped")
        try:
            outcome = worker.run(job)
        finally:
            with self._lock:
                self._busy.discard(worker)
                stopped = self._stopped
        if not stopped and worker.usable:
            with self._lock:
                self._idle.append(worker)
        else:
            worker.close()
        return outcome

    def stop(self) -> None:
        """End all processes; captures that are under way come back as skipped."""
        with self._lock:
            self._stopped = True
            for worker in self._busy:
                worker.kill()
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def start(self) -> None:
        """Take jobs again after ``stop``."""
        with self._lock:
            self._stopped = False

    def _take(self, threads: int) -> Worker | None:
        """A process with so many threads; None: no more are wanted."""
        with self._lock:
            if self._stopped:
                return None
            found = next((worker for worker in self._idle if worker.threads == threads), None)
            if found is not None:
                self._idle.remove(found)
                self._busy.add(found)
                return found
        worker = Worker(threads)
        with self._lock:
            if not self._stopped:
                self._busy.add(worker)
                return worker
        worker.close()
        return None


WORKERS: Final = Workers()
"""Those of this process."""

atexit.register(WORKERS.stop)


def run_isolated(job: Job) -> Outcome:
    """Analyse one capture in another process of this machine.

    Raises:
        UsageError: This is another version of replay than the one that runs the batch.
        RuntimeError: No such process can be started.
    """
    if job.version != __version__:
        raise UsageError(
            f"the batch is run by replay {job.version}, here is {__version__}",
            where=f"worker on {socket.gethostname()}",
            hint="install the same version everywhere",
        )
    return WORKERS.run(job)
