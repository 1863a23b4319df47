"""The captures of one run, handed to an executor a few at a time, and what became of each."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.batch.job import Job, Outcome
from replay.batch.process import WORKERS, run_isolated
from replay.batch.urls import is_url, shown
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replay.batch.progress import Progress

POLL_SECONDS: Final = 0.2
"""How soon a signal is noticed."""

STOP_SECONDS: Final = 5
"""How long captures under way may take to end after a signal."""

AHEAD: Final = 4
"""Jobs that are handed to the executor for each that it can do at a time."""


@dataclass
class Stop:
    """Whether a signal came, and which."""

    signal: int | None = None


class Run:
    """The captures of one run and what became of them so far."""

    def __init__(
        self,
        base: Job,
        captures: Sequence[str],
        stop: Stop,
        progress: Callable[[int, int], Progress] | None,
    ) -> None:
        """Take what all jobs have in common, the captures, and a display made from their number and bytes."""
        self._base = base
        self._captures = captures
        self._stop = stop
        self._sizes = [_size(path) for path in captures]
        self._progress = progress and progress(len(captures), sum(size or 0 for size in self._sizes))
        self._outcomes: dict[int, Outcome] = {}
        self._same: dict[int, int] = {}

    def work(self, executor: Executor, slots: int) -> None:
        """Analyse all captures; those that a process died of again, one at a time."""
        self._same = self._duplicates(executor)
        todo = [number for number in range(len(self._captures)) if number not in self._same]
        again: list[int] = []
        try:
            self._all(executor, todo, slots * AHEAD, self._base, again)
            self._all(executor, sorted(again), 1, replace(self._base, alone=True), [])
        finally:
            if self._progress:
                self._progress.end()

    def finished(self) -> list[Outcome]:
        """All outcomes, in the order of the captures; what was not reached is skipped."""
        outcomes: list[Outcome] = []
        first: dict[str, int] = {}
        for number in range(len(self._captures)):
            outcome = self._outcome(number)
            same = self._same.get(number)
            if same is None and outcome.sha256 is not None:
                # Remote captures are compared only now.
                same = first.setdefault(outcome.sha256, number)
            if same is not None and same != number:
                outcome = _copy(outcomes[same], outcome.path)
            outcomes.append(outcome)
        return outcomes

    def _outcome(self, number: int) -> Outcome:
        path = shown(self._captures[number])
        outcome = self._outcomes.get(number)
        if outcome is None or outcome.status == "skipped":
            return Outcome(
                path, "skipped", what="the batch was stopped before it", hint="the same command continues"
            )
        return outcome

    def _all(self, executor: Executor, todo: Sequence[int], ahead: int, base: Job, again: list[int]) -> None:
        """Do the jobs, ``ahead`` of them handed out at a time."""
        waiting = iter(todo)
        running: dict[Future[Outcome], int] = {}
        while self._stop.signal is None:
            for number in waiting:
                job = replace(base, path=self._captures[number])
                running[executor.submit(run_isolated, job)] = number
                if len(running) >= ahead:
                    break
            if not running:
                return
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                number = running.pop(future)
                outcome = self._result(future, number)
                if outcome.again:
                    again.append(number)
                    self._outcomes[number] = outcome
                else:
                    self._done(number, outcome)
            if self._progress:
                self._progress.tick()
        for future in running:
            future.cancel()
        WORKERS.stop()
        for future in wait(running, STOP_SECONDS).done:
            if not future.cancelled():
                self._outcomes[running[future]] = self._result(future, running[future])

    def _result(self, future: Future[Outcome], number: int) -> Outcome:
        """The outcome of a job; the executor itself may have lost it (dask: KilledWorker)."""
        try:
            error = future.exception()
        except CancelledError as cancelled:
            raise OutputError(
                "the executor dropped a capture: its scheduler may be gone",
                path=shown(self._base.out),
                hint="the same command continues",
            ) from cancelled
        if error is None:
            return future.result()
        if type(error).__name__ != "KilledWorker":
            raise error
        return Outcome(
            shown(self._captures[number]),
            "crashed",
            error="KilledWorker",
            what="every worker of the cluster that analysed it died",
            where=str(error),
            hint="see the workers' logs; --memory keeps one capture from taking a whole worker",
        )

    def _done(self, number: int, outcome: Outcome) -> None:
        self._outcomes[number] = outcome
        if self._progress:
            self._progress.add(self._sizes[number] or 0, failed=outcome.failed, fresh=outcome.fresh)

    def _duplicates(self, executor: Executor) -> dict[int, int]:
        """Captures that have the bytes of an earlier one. Only those of equal size are read for that."""
        by_size = defaultdict(list)
        for number, size in enumerate(self._sizes):
            if size is not None:
                by_size[size].append(number)
        alike = sorted(number for numbers in by_size.values() if len(numbers) > 1 for number in numbers)
        first: dict[str, int] = {}
        same = {}
        for number, digest in zip(
            alike, executor.map(_digest, [self._captures[n] for n in alike]), strict=True
        ):
            if self._stop.signal is not None:
                break
            if digest is not None and first.setdefault(digest, number) != number:
                same[number] = first[digest]
        for _ in same:
            if self._progress:
                self._progress.add(0, failed=False, fresh=False)
        return same


def _copy(first: Outcome, path: str) -> Outcome:
    """The outcome of a capture that has the bytes of an earlier one."""
    return replace(
        first,
        path=path,
        status="skipped",
        error=None,
        what=f"the same bytes as {first.path}",
        where=None,
        hint=None,
        seconds=None,
        peak_bytes=None,
    )


def _digest(path: str) -> str | None:
    """SHA-256 of a file; None: it cannot be read, which its analysis will say."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _size(path: str) -> int | None:
    """Size of a local file; None: it is elsewhere, or there is none."""
    try:
        return None if is_url(path) else Path(path).stat().st_size
    except OSError:
        return None
