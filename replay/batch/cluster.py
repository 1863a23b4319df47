"""A dask.distributed cluster as the executor of a batch (extra ``fleet``)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from replay import __version__
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

CONNECT_SECONDS: Final = 10


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """Connect to a scheduler.

    Args:
        address: Such as ``tcp://10.0.0.1:8786``.

    Returns:
        The executor, and how many captures it analyses at a time now.

    Raises:
        UsageError: distributed is not installed, nothing answers, or the workers cannot run this replay.
    """
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            "dask.distributed is not installed",
            where=f"--scheduler {address}",
            hint="install the extra: pipx install 'rmap-replay[fleet]'",
        ) from error
    try:
        connect: Any = distributed.Client  # comes without types
        client = connect(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no scheduler answers: {error}",
            where=f"--scheduler {address}",
            hint="start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
        ) from error
    with client:
        threads = client.nthreads()
        _check(client.run(worker_version, on_error="return"), address)
        # Not pure: a capture that is tried again is not the same call.
        with client.get_executor(pure=False) as executor:
            yield executor, sum(threads.values())


def worker_version() -> str:
    """Version of replay where this runs."""
    return __version__


def _check(answers: dict[str, object], address: str) -> None:
    """See that there are workers and that all run this version."""
    if not answers:
        raise UsageError(
            "the scheduler has no workers",
            where=f"--scheduler {address}",
            hint=f"start some: dask worker {address}",
        )
    for worker, answer in sorted(answers.items()):
        if answer != __version__:
            raise UsageError(
                f"a worker does not have replay {__version__}",
                where=f"{worker}: {answer!r}",
                hint="install the same version of replay in the workers' environment",
            )
