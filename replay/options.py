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
        evidence: ``exact`` (the tree probes), ``modelled`` (system calls and the kernel's rules), ``both``
            (exact, and how well the model agrees with it); None: exact where the capture has the probes,
            else modelled.
        kernel_rules: Rules of the model, ``6.12`` or ``7.3``; None: those of the kernel in the capture.
        maps: File, folder or tar archive with texts of /proc/PID/maps or smaps: what was mapped already.
        walks: ``observed`` (those of the capture) or ``every-node`` (besides, what a migration and a reclaim
            of every stable node would cost).
        max_page_sharing: A limit of KSM: what it and a few others would change; None: not asked.
        ts2secs: Ticks a second of a trace clock that counts no ns; None: times are what the capture says.
    """

    strategies: tuple[str, ...] = ("full", "addr", "vm_pgoff", "linear")
    evidence: str | None = None
    kernel_rules: str | None = None
    maps: str | None = None
    walks: str = "observed"
    max_page_sharing: int | None = None
    ts2secs: int | None = None
