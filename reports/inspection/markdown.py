"""What ``replay inspect`` says as Markdown (GitHub's dialect): the same as the plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reports.escape import ascii_only, markdown
from reports.inspection import words
from reports.markdown import bullets, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

MAX_RANGES: Final = 10
"""Ranges of lost events that are listed for one CPU."""


def render_markdown(tables: Mapping[str, pa.Table]) -> str:
    """Render the tables of ``replay.inspect.inspect`` as Markdown, with a final newline."""
    said = words.gather(tables)
    start = said.capture["first_ts_ns"]
    answers = [(row["question"], row["asks"], row["answer"], words.why(row)) for row in said.answers]
    events = [
        (
            row["name"],
            f"{row['records']:,}",
            "-" if row["per_second"] is None else f"{row['per_second']:,.1f}",
            words.since(row["first_ts_ns"], start),
            words.since(row["last_ts_ns"], start),
            row["read_as"] or "-",
        )
        for row in said.events
    ]
    blocks = [
        table(("capture", ""), words.provenance(said), "--"),
        table(("question", "asks", "answer", "why"), answers, "----"),
        "Events (times in seconds after the first event):",
        table(("event", "records", "per s", "first s", "last s", "read as"), events, "-rrrr-"),
        "Lost events:" if said.losses else "No event is known to be lost.",
    ]
    if said.losses:
        blocks.append(bullets(line for each in said.losses for line in _loss(each, start)))
    if said.limits:
        limits = (f"{each.severity}: {each.head}: {each.effect}" for each in said.limits)
        blocks += ["What else limits the evidence:", bullets(limits)]
    for each in said.recordings:
        blocks += [f"To record what is lacking on {markdown(each.applies_to)}:", _commands(each.commands)]
    return "\n\n".join(blocks) + "\n"


def _loss(losses: words.Losses, start: int | None) -> list[str]:
    spans = [words.loss_range(span, start) for span in losses.ranges[:MAX_RANGES]]
    if len(losses.ranges) > MAX_RANGES:
        spans.append(f"{len(losses.ranges) - MAX_RANGES:,} more")
    return [f"{words.loss_head(losses)} ({'; '.join(spans)})"]


def _commands(commands: Sequence[words.Command]) -> str:
    """A fenced block; no text of the capture is in it."""
    lines = [line for each in commands for line in (f"# {each.does}", each.command)]
    return "\n".join(["```sh", *(ascii_only(line) for line in lines), "```"])
