"""``replay inspect``: what a capture is, what it holds, what it can answer, and how to record the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from captures import open_capture
from captures.answers import Holdings, answers
from captures.recipes import KERNELS
from captures.recording import EXACT, TOOLS, TRUTH, steps
from replay import __version__
from schemas import TABLES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from captures.answers import Answer
    from captures.info import Capture


def inspect(path: str | os.PathLike[str], ts2secs: int | None = None) -> dict[str, pa.Table]:
    """Look at a capture without replaying it.

    Args:
        path: The capture; it need not hold what ``analyze`` needs.
        ts2secs: Ticks a second of its clock, as ``AnalyzeOptions`` has it.

    Returns:
        Tables ``capture``, ``quality``, ``event``, ``answer`` and ``recording``; each as ``schemas.TABLES``
        describes it.

    Raises:
        CaptureError: The capture cannot be read.
        UsageError: ``ts2secs`` for a file that is no trace.dat.
    """
    with open_capture(path, ts2secs) as capture:
        spans = capture.event_spans()
        holdings = Holdings.of(capture)
        given = answers(holdings)
        rows = {
            "capture": [_provenance(capture, holdings)],
            "event": _events(capture, holdings, spans),
            "answer": [_answer(each) for each in given],
            "recording": list(_recordings(holdings, given)),
        }
        quality = capture.quality()
    tables = {name: pa.Table.from_pylist(each, TABLES[name].arrow) for name, each in rows.items()}
    return {name: TABLES[name].check(table) for name, table in {**tables, "quality": quality}.items()}


def _provenance(capture: Capture, holdings: Holdings) -> dict[str, Any]:
    rules = {"6.12": "vm_pgoff", "7.3": "anon_pgoff"}
    has_trees = any(each.role.table == "ev_avc" and not each.lacking for each in holdings.matches)
    return {
        **asdict(capture.info),
        "events_decoded": 0,
        "replay_version": __version__,
        "page_offset_rule": rules[holdings.kernels[0]] if has_trees else None,
        "native_strategy": None,
    }


def _events(capture: Capture, holdings: Holdings, spans: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Rows of table ``event``, in order of name."""
    first, last = capture.info.first_ts_ns, capture.info.last_ts_ns
    duration = 0 if first is None or last is None else last - first
    read_as = {each.name: each.role.table for each in holdings.matches if not each.lacking}
    read_as |= {name: "ev_syscall" for name in holdings.calls}
    rows = []
    for name, records in sorted(holdings.counts.items()):
        begin, end = spans[name]
        has_times = first is not None and begin >= first
        rows.append(
            {
                "name": name,
                "records": records,
                "per_second": records * 1e9 / duration if duration and holdings.has_durations else None,
                "first_ts_ns": begin if has_times else None,
                "last_ts_ns": end if has_times else None,
                "read_as": read_as.get(name),
            }
        )
    return rows


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question.name,
        "asks": answer.question.asks,
        "answer": answer.grade,
        "reason": answer.reason,
        "lacking": ", ".join(answer.lacking) or None,
    }


def _recordings(holdings: Holdings, given: Iterable[Answer]) -> Iterable[dict[str, Any]]:
    """Rows of table ``recording``: what makes answers exact; once they are, what checks the replay itself.

    What takes an option of ``replay record`` is not among it: the answer names the option. After losses the
    buffers are larger.
    """
    lacking = [each for each in given if each.lacking and each.question.option is None]
    if not lacking and not holdings.has_losses:
        return
    is_complete = all(each.question.is_check for each in lacking) and not holdings.has_losses
    recipes, buffer_mib = TRUTH if is_complete else EXACT, 64 if holdings.has_losses else 16
    for kernel in holdings.kernels:
        names = {"kernel": kernel, "applies_to": KERNELS[kernel]}
        for tool in TOOLS:
            for number, step in enumerate(steps(kernel, tool, recipes, buffer_mib), 1):
                yield {**names, "tool": tool, "step": number, **asdict(step)}
