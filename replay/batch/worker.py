"""The process that analyses captures: one after the other, until nobody wants more.

It is started by ``replay.batch.process``, gets jobs over a socket and answers each with an Identity, then an
Outcome. When the other end goes away, so does it, whatever it is doing: what is not whole lies in a
folder for unfinished work.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import threading
from multiprocessing.connection import Connection
from typing import Final

READY: Final = "ready"
"""First message: everything is imported."""


def main(descriptor: int) -> None:
    """Work for the other end of a socket.

    Args:
        descriptor: The socket.
    """
    faulthandler.enable()
    connection = Connection(descriptor)
    jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()

    # Takes a second: only now that the end of the socket is watched.
    from replay.batch import job as batch_job
    from replay.batch import unit as batch_unit

    connection.send(READY)
    while True:
        job = jobs.get()
        assert isinstance(job, batch_job.Job)
        connection.send(batch_unit.run(job, connection.send))


def _listen(connection: Connection, jobs: queue.SimpleQueue[object]) -> None:
    """Take jobs; end the process when there can be no more."""
    while True:
        try:
            jobs.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)
