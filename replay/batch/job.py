"""What a batch hands to a worker and what comes back: frozen, picklable, small."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from replay import __version__
from replay.options import AnalyzeOptions
from schemas.fleet import FAILED

if TYPE_CHECKING:
    from schemas.errors import ReplayError

RESULT: Final = "result.json"
"""File in a result folder that says what it is the result of."""

_PASSING: Final = {"fresh", "again"}
"""Attributes of an outcome that are of this run only."""

HASH_DIGITS: Final = 12
"""Digits of the SHA-256 that name a result folder."""


@dataclass(frozen=True)
class Limits:
    """What one capture may take.

    Attributes:
        seconds: Time; None: no limit.
        memory_bytes: Resident memory of the process; None: no limit.
        threads: Threads of polars in the process.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    threads: int = 1


@dataclass(frozen=True)
class Job:
    """Analyse one capture.

    Attributes:
        path: The capture: a path, or a URL for fsspec.
        out: Folder (or URL) of the batch.
        scratch: Folder in which unfinished work of this run lies. On the filesystem of ``out`` unless that is
            a URL; None: each worker makes one of its own.
        options: Options of the analysis.
        limits: What it may take.
        force: Analyse even if there is a result of the same bytes, version and options.
        retry_failed: As ``force``, where that result is a failure.
        alone: No other capture is analysed beside it, and it is not tried again.
        version: Version of replay that the batch runs; a worker of another version refuses.
    """

    path: str
    out: str
    scratch: str | None
    options: AnalyzeOptions = field(default_factory=AnalyzeOptions)
    limits: Limits = field(default_factory=Limits)
    force: bool = False
    retry_failed: bool = False
    alone: bool = False
    version: str = __version__


@dataclass(frozen=True)
class Outcome:
    """What became of one capture: one row of table ``captures``.

    Attributes:
        fresh: Whether this run made it; False: it was there.
        again: Whether the process died of what may not be this capture's fault: it is to be tried again,
            with no other capture beside it.

    The other attributes are the columns of the table; ``result`` is None where nothing could be kept.
    """

    path: str
    status: str
    sha256: str | None = None
    result: str | None = None
    error: str | None = None
    what: str | None = None
    where: str | None = None
    hint: str | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    size_bytes: int | None = None
    events: int | None = None
    events_lost: int | None = None
    fresh: bool = True
    again: bool = False

    @property
    def failed(self) -> bool:
        """Whether it makes the batch incomplete."""
        return self.status in FAILED

    def row(self) -> dict[str, Any]:
        """The row of table ``captures``."""
        row = asdict(self)
        return {name: row[name] for name in row if name not in _PASSING}


def error_fields(error: ReplayError, *, kind: str | None = None) -> dict[str, Any]:
    """The columns of an outcome that say what went wrong."""
    return {
        "error": type(error).__name__ if kind is None else kind,
        "what": error.what,
        "where": error.where,
        "hint": error.hint,
    }


def settings(options: AnalyzeOptions) -> dict[str, Any]:
    """What a result depends on besides the bytes of the capture, as JSON has it."""
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return {"version": __version__, "options": wanted}


def to_json(outcome: Outcome, options: AnalyzeOptions) -> str:
    """The text of ``result.json``."""
    return json.dumps({**settings(options), "outcome": outcome.row()}, indent=1) + "\n"


def from_json(text: bytes, options: AnalyzeOptions) -> Outcome | None:
    """The outcome that a ``result.json`` holds; None: it is of other settings, or no such file."""
    try:
        kept = json.loads(text)
        if {key: kept[key] for key in ("version", "options")} != settings(options):
            return None
        names = {one.name for one in fields(Outcome)} - _PASSING
        outcome = {name: value for name, value in kept["outcome"].items() if name in names}
        return Outcome(**outcome, fresh=False)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
