"""What a user can ask for: one frozen dataclass a command. Picklable, so a batch can send them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnalyzeOptions:
    """Options of ``analyze``.

    Attributes:
        strategies: Names of the strategies to replay, in the order of the report. An unknown name is a
            UsageError of ``analyze``. The rows of ``observed`` (the kernel's own counts) are always there
            when the capture has them.
    """

    strategies: tuple[str, ...] = ("full", "addr", "vm_pgoff", "linear")
