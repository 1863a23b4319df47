"""What ``replay inspect`` says, taken from its tables once: text, Markdown and JSON cannot differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.facts.all import notes
from schemas.provenance import NO_NS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.all import Note

LOST = "lost_events"


@dataclass(frozen=True)
class Losses:
    """Lost events of one CPU.

    Attributes:
        cpu: The CPU; None: not one CPU's.
        known: Sum of the counts that are known.
        is_whole: Whether all of them are.
        ranges: (start_ns, end_ns, count) of each loss, in order of time; None: open, or not known.
    """

    cpu: int | None
    known: int
    is_whole: bool
    ranges: Sequence[tuple[int | None, int | None, int | None]]


@dataclass(frozen=True)
class Command:
    """One command of a recording; equal commands of two tools are one.

    Attributes:
        does: What it does, with the tool where that matters.
        command: One line for a shell.
    """

    does: str
    command: str


@dataclass(frozen=True)
class Recording:
    """The commands for one kernel, in their order.

    Attributes:
        kernel: Kernel whose names they use.
        applies_to: The kernels that have these names.
        commands: The commands.
    """

    kernel: str
    applies_to: str
    commands: Sequence[Command]


@dataclass(frozen=True)
class Inspection:
    """The tables as rows.

    Attributes:
        capture: The row of table ``capture``.
        answers: Rows of table ``answer``.
        events: Rows of table ``event``.
        losses: Rows of table ``quality`` about lost events, by CPU.
        limits: The other rows of table ``quality``, equal ones together.
        recordings: Table ``recording``, by kernel.
    """

    capture: Mapping[str, Any]
    answers: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    losses: Sequence[Losses]
    limits: Sequence[Note]
    recordings: Sequence[Recording]


def gather(tables: Mapping[str, pa.Table]) -> Inspection:
    """Take what is said from the tables of ``replay.inspect.inspect``."""
    quality = tables["quality"]
    return Inspection(
        capture=tables["capture"].to_pylist()[0],
        answers=tables["answer"].to_pylist(),
        events=tables["event"].to_pylist(),
        losses=_losses([row for row in quality.to_pylist() if row["kind"] == LOST]),
        limits=[note for note in notes(quality) if note.kind != LOST],
        recordings=_recordings(tables["recording"].to_pylist()),
    )


def provenance(found: Inspection) -> list[tuple[str, str]]:
    """What the capture is: label and value, in the order of printing."""
    capture = found.capture
    first, last, lost = capture["first_ts_ns"], capture["last_ts_ns"], capture["events_lost"]
    duration = "no duration" if first is None else f"{seconds(last - first)} s"
    if any(note.kind == NO_NS for note in found.limits):
        duration = "a time that is not known"
    events = [f"{capture['events']:,} in {duration}"]
    events.append("how many were lost is not known" if lost is None else f"{lost:,} lost")
    if capture["truncated"]:
        events.append("file truncated")
    kernel = [capture["kernel_release"] or "not known", capture["arch"] or "arch not known"]
    kernel.append(f"{capture['cpus']} cpu{'' if capture['cpus'] == 1 else 's'}")
    if capture["hostname"]:
        kernel.append(f"host {capture['hostname']}")
    if capture["page_offset_rule"]:
        kernel.append(f"trees keyed by {capture['page_offset_rule']}")
    return [
        ("capture", f"{capture['path']} ({capture['size_bytes']:,} bytes)"),
        ("format", ", by ".join(each for each in (capture["format"], capture["tool"]) if each)),
        ("sha256", capture["sha256"]),
        ("kernel", ", ".join(kernel)),
        ("clock", capture["clock"] or "not known"),
        ("events", ", ".join(events)),
    ]


def why(answer: Mapping[str, Any]) -> str:
    """The reason for an answer, and what would make it better."""
    if answer["lacking"] is None:
        return str(answer["reason"])
    return f"{answer['reason']} To record: {answer['lacking']}."


def seconds(ns: int) -> str:
    """Nanoseconds as seconds with six decimals."""
    return f"{ns / 1e9:.6f}"


def since(ns: int | None, start: int | None) -> str:
    """A time as seconds after the first event of the capture; ``-``: not known."""
    return "-" if ns is None or start is None else seconds(ns - start)


def loss_head(losses: Losses) -> str:
    """CPU and number of lost events."""
    where = "no cpu named" if losses.cpu is None else f"cpu {losses.cpu}"
    many = f"{losses.known:,} events lost{'' if losses.is_whole else ' and more, how many is not known'}"
    return f"{where}: {many}, in {len(losses.ranges):,} place{'' if len(losses.ranges) == 1 else 's'}"


def loss_range(span: tuple[int | None, int | None, int | None], start: int | None) -> str:
    """One range of a loss, in seconds after the first event of the capture."""
    begin, end, count = span
    many = "number not known" if count is None else f"{count:,} events"
    if begin is None and end is None:
        return f"{many}, somewhere"
    return f"{since(begin, start)} to {since(end, start)} s: {many}"


def _losses(rows: Sequence[Mapping[str, Any]]) -> list[Losses]:
    by_cpu: dict[int | None, list[tuple[int | None, int | None, int | None]]] = {}
    for row in rows:
        by_cpu.setdefault(row["cpu"], []).append((row["start_ns"], row["end_ns"], row["count"]))
    found = []
    for cpu, spans in sorted(by_cpu.items(), key=lambda item: (item[0] is None, item[0] or 0)):
        counts = [count for _, _, count in spans if count is not None]
        found.append(Losses(cpu, sum(counts), len(counts) == len(spans), spans))
    return found


def _recordings(rows: Sequence[Mapping[str, Any]]) -> list[Recording]:
    found = []
    for kernel, applies_to in dict.fromkeys((row["kernel"], row["applies_to"]) for row in rows):
        own = sorted((row for row in rows if row["kernel"] == kernel), key=lambda row: row["step"])
        tools: dict[tuple[str, str], list[str]] = {}
        for row in own:
            tools.setdefault((row["does"], row["command"]), []).append(row["tool"])
        all_tools = {row["tool"] for row in own}
        commands = [
            Command(does if set(used) == all_tools else f"with {used[0]}: {does}", command)
            for (does, command), used in tools.items()
        ]
        found.append(Recording(kernel, applies_to, commands))
    return found
