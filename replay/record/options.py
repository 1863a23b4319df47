"""What is asked of ``replay record``: one frozen object, checked by the command line before it is used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Tool(StrEnum):
    """Program that does the recording."""

    trace_cmd = "trace-cmd"
    perf = "perf"


class Profile(StrEnum):
    """How much is recorded."""

    stock = "stock"
    exact = "exact"
    truth = "truth"


@dataclass(frozen=True)
class RecordOptions:
    """What to record, and how.

    Attributes:
        output: The capture.
        tool: What records.
        profile: ``stock``: tracepoints that every kernel has; ``exact``: also the probes that replay needs;
            ``truth``: also the kernel's own counts.
        duration: Seconds at most; None: as long as the command, without one until interrupted.
        buffer_mib: Buffer of each CPU.
        btf: The kernel's BTF, for one that takes no arguments by name; None: that of the running kernel.
        force: Whether an existing capture is replaced.
        anon: Whether walks over ordinary anonymous pages are recorded too; not with ``stock``.
        command: What runs meanwhile; empty: nothing.
    """

    output: Path
    tool: Tool = Tool.trace_cmd
    profile: Profile = Profile.exact
    duration: float | None = None
    buffer_mib: int = 64
    btf: Path | None = None
    force: bool = False
    anon: bool = False
    command: tuple[str, ...] = ()
