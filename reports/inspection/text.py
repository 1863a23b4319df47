"""What ``replay inspect`` says as plain text: ASCII, at most 100 columns; commands can be pasted."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from reports.escape import ascii_only
from reports.inspection import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

WIDTH: Final = 100
MAX_RANGES: Final = 10
"""Ranges of lost events that are printed for one CPU."""

_COLUMNS: Final = ("event", "records", "per s", "first s", "last s", "read as")
_WORD: Final = re.compile(r"-e (?:'[^']*'|\S+)|(?:[^\s']|'[^']*')+")


def render_text(tables: Mapping[str, pa.Table]) -> str:
    """Render the tables of ``replay.inspect.inspect`` as plain text.

    Returns:
        Lines of at most 100 ASCII characters with a final newline; only a single word of a command, such as
        a long path, may need more.
    """
    said = words.gather(tables)
    start = said.capture["first_ts_ns"]
    blocks = [
        _lines(_labelled(label, value) for label, value in words.provenance(said)),
        _lines(["Questions:", *(line for row in said.answers for line in _answer(row))]),
        _events(said.events, start),
    ]
    if said.losses:
        blocks.append(
            _lines(["Lost events:", *(line for each in said.losses for line in _loss(each, start))])
        )
    else:
        blocks.append("No event is known to be lost.")
    if said.limits:
        limits = (_wrap(f"  {each.severity}: {each.head}: {each.effect}", "    ") for each in said.limits)
        blocks.append(_lines(["What else limits the evidence:", *limits]))
    blocks += [_recording(each, len(said.recordings) > 1) for each in said.recordings]
    return "\n\n".join(blocks) + "\n"


def _answer(row: Mapping[str, Any]) -> Iterable[str]:
    yield _wrap(f"  {row['answer']:<8} {row['question']}: {row['asks']}", " " * 11)
    yield _wrap(f"{' ' * 11}{words.why(row)}", " " * 11)


def _events(rows: Sequence[Mapping[str, Any]], start: int | None) -> str:
    if not rows:
        return "No event occurs."
    cells = [list(_COLUMNS)]
    for row in rows:
        rate = row["per_second"]
        cells.append(
            [
                ascii_only(row["name"]),
                f"{row['records']:,}",
                "-" if rate is None else f"{rate:,.1f}",
                words.since(row["first_ts_ns"], start),
                words.since(row["last_ts_ns"], start),
                row["read_as"] or "-",
            ]
        )
    widths = [max(len(line[place]) for line in cells) for place in range(len(_COLUMNS))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]) - 2)
    lines = ["Events (times in seconds after the first event):"]
    for name, *numbers, read_as in cells:
        short = name if len(name) <= widths[0] else f"{name[: widths[0] - 3]}..."
        numeric = "".join(f"  {text:>{width}}" for text, width in zip(numbers, widths[1:], strict=False))
        lines.append(f"  {short:<{widths[0]}}{numeric}  {read_as}")
    return _lines(lines)


def _loss(losses: words.Losses, start: int | None) -> Iterable[str]:
    yield f"  {words.loss_head(losses)}"
    for span in losses.ranges[:MAX_RANGES]:
        yield f"    {words.loss_range(span, start)}"
    if len(losses.ranges) > MAX_RANGES:
        yield f"    ({len(losses.ranges) - MAX_RANGES:,} more: --format json)"


def _recording(recording: words.Recording, is_guess: bool) -> str:
    which = f" on {recording.applies_to}" if is_guess else f" (for {recording.applies_to})"
    lines = [f"To record what is lacking{which}:"]
    for each in recording.commands:
        lines += [_wrap(f"  # {each.does}", "  # "), _command(each.command)]
    return _lines(lines)


def _command(command: str) -> str:
    """A command over several lines, continued so that a shell takes it as it is."""
    lines = [""]
    for word in _WORD.findall(command):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH - len("  ") - len("    ") - len(" \\"):
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return " \\\n".join(f"  {'    ' if number else ''}{line}" for number, line in enumerate(lines))


def _labelled(label: str, value: str) -> str:
    return _wrap(f"{label:<8}{value}", " " * 8)


def _wrap(text: str, indent: str) -> str:
    safe = ascii_only(text)
    return "\n".join(textwrap.wrap(safe, WIDTH, subsequent_indent=indent, break_on_hyphens=False))


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
