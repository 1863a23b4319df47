"""What a scenario of the testbench works with: pages of chosen contents, merged and walked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from operator import ne
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.testbench import damon, mm

if TYPE_CHECKING:
    from replay.testbench.ksm import Ksm

MARKER: Final = Path("/sys/kernel/tracing/trace_marker")


@dataclass(frozen=True)
class BenchOptions:
    """What is asked for.

    Attributes:
        scenario: One of ``SCENARIOS``.
        pages: Pages to merge.
        contents: Different contents that they have: how many groups of equal pages there are.
        walks: Pages to migrate in each phase.
        seed: Of scenario ``random``.
        timeout_s: How long KSM may take to merge.
    """

    scenario: str = "split"
    pages: int = 20_000
    contents: int = 1
    walks: int = 4
    seed: int = 1
    timeout_s: float = 300.0


@dataclass
class Bench:
    """What a scenario works with.

    Attributes:
        options: What is asked for.
        ksm: KSM, set up.
        migrated: Pages that were migrated.
        refused: Pages that the kernel did not migrate.
        looked_at: Pages that DAMON looked at instead, on a machine of one NUMA node.
    """

    options: BenchOptions
    ksm: Ksm
    migrated: int = 0
    refused: int = 0
    looked_at: int = 0
    nodes: list[int] = field(default_factory=mm.nodes)

    def fill(self, address: int, pages: int) -> None:
        """Write the contents, in turns."""
        mm.fill(address, pages, 0x5A)
        if self.options.contents > 1:
            for place in range(pages):
                mm.write(address + place * mm.PAGE, 1 + place % self.options.contents)

    def merge(self, pages: int) -> None:
        """Wait until KSM has merged the pages."""
        merged = self.ksm.merge(pages, self.options.timeout_s)
        self.mark("merged", f"{merged:,} pages are merged")

    def walk(self, phase: str, addresses: list[int]) -> None:
        """Have the kernel walk the mappings of pages from among ``addresses``, evenly chosen.

        It migrates them to another NUMA node; where there is none, DAMON looks at them; where there is no
        DAMON either, memory is compacted, which migrates those that are in its way.
        """
        step = max(1, len(addresses) // self.options.walks)
        chosen = addresses[: step * self.options.walks : step]
        self.mark(phase, f"has {len(chosen)} pages walked: {phase}")
        if len(self.nodes) < 2:
            frames = mm.frames(chosen)
            present = sorted({*frames} - {0})
            if damon.look_at(present):
                self.looked_at += len(present)
            else:
                mm.compact()
                self.migrated += sum(map(ne, frames, mm.frames(chosen)))
            return
        for address in chosen:
            if mm.migrate(address, self.nodes):
                self.migrated += 1
            else:
                self.refused += 1

    def mark(self, phase: str, words: str) -> None:
        """Say what goes on: on stderr, and in a trace that is being recorded."""
        sys.stderr.write(f"testbench {self.options.scenario}: {words}\n")
        if os.access(MARKER, os.W_OK):
            text = f"testbench {self.options.scenario} {phase} pid={os.getpid()}"
            MARKER.write_text(text, encoding="ascii")
