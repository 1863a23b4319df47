"""The commands that take a capture, from the recipes in ``captures/probes``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from captures.recipes import read_recipe, recipe_path, stock_events

DYNAMIC_EVENTS: Final = "/sys/kernel/tracing/dynamic_events"

TOOLS: Final = ("trace-cmd", "perf")

EXACT: Final = ("exact",)
TRUTH: Final = ("exact", "truth")
"""Recipes to use together."""


@dataclass(frozen=True)
class Step:
    """One command of a recording.

    Attributes:
        does: What it does, in a few words.
        command: The command, one line for a shell.
    """

    does: str
    command: str


def steps(kernel: str, tool: str, recipes: tuple[str, ...] = EXACT, buffer_mib: int = 16) -> list[Step]:
    """The commands of one recording, in their order.

    Args:
        kernel: One of ``captures.recipes.KERNELS``.
        tool: One of ``TOOLS``.
        recipes: ``EXACT`` or ``TRUTH``.
        buffer_mib: Buffer of each CPU, in MiB; perf needs a power of two.
    """
    paths = [recipe_path(each, kernel) for each in recipes]
    systems = [read_recipe(path)[0].name.partition(":")[0] for path in paths]
    # Not tee -a: opened that way it seeks to the end of the file, which dynamic_events refuses.
    into = shlex.quote(f"cat >> {DYNAMIC_EVENTS}")
    files = " ".join(shlex.quote(str(path)) for path in paths)
    names = " ".join(f"-:{system}/" for system in systems)
    record = f"record until Ctrl-C, or name a command at the end{_caveat(kernel, tool)}; {_UNKNOWN}"
    return [
        Step("define the probes", f"cat {files} | sudo sh -c {into}"),
        Step(record, _record(tool, systems, buffer_mib)),
        Step("remove the probes", f"printf '%s\\n' {names} | sudo sh -c {into}"),
    ]


_UNKNOWN: Final = "without events that this kernel does not have, which the tool names"


def _caveat(kernel: str, tool: str) -> str:
    """What the recording will not tell."""
    # exact-6.12 can only store an address, and perf.data holds no kallsyms.
    return " (will not tell who asked for a walk)" if (kernel, tool) == ("6.12", "perf") else ""


def _record(tool: str, systems: list[str], buffer_mib: int) -> str:
    """The recording itself, with the same clock and buffer for both tools."""
    if tool == "trace-cmd":
        head = f"sudo trace-cmd record -o trace.dat -C mono -b {buffer_mib * 1024}"
        events = [*systems, *stock_events()]
    else:
        head = f"sudo perf record -o perf.data -a -k mono -m {buffer_mib}M"
        events = [*(f"{system}:*" for system in systems), *stock_events()]
    return " ".join([head, *(f"-e {shlex.quote(each)}" for each in events)])
