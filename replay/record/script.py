"""The shell script that records: the template ``record.sh`` with the probes and events of a kernel in it.

``replay record`` runs the very script that ``replay record --print`` prints.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from captures.recipes import stock_events
from replay import __version__
from replay.record.options import Profile
from replay.record.probes import SYSTEMS, TELLING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.record.options import RecordOptions
    from replay.record.probes import Definition

TEMPLATE: Final = Path(__file__).with_name("record.sh")


def script(options: RecordOptions, probes: Mapping[str, list[Definition]]) -> str:
    """A script for /bin/sh that makes the capture.

    Args:
        options: What to record.
        probes: For each kernel that the script is for (keys of ``TELLING``) what it defines there; with
            several the script sees on the spot which of them it runs on.
    """
    systems = SYSTEMS[: {Profile.stock: 0, Profile.exact: 1, Profile.truth: 2}[options.profile]]
    filled = {
        "made": [f"# Made by replay {__version__}: {options.profile} events, with {options.tool}."],
        "settings": _settings(options, probes),
        "probes": _probes(probes) or [":"],
        "events": [f"event {shlex.quote(each)}" for each in (*stock_events(), *(f"{s}:*" for s in systems))],
        "command": [f"[ $# -gt 0 ] || set -- {shlex.join(options.command)}"] if options.command else [],
    }
    lines = []
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        indent, mark, name = line.partition("#@ ")
        lines += [indent + each for each in filled[name]] if mark else [line]
    return "\n".join(lines) + "\n"


def _settings(options: RecordOptions, probes: Mapping[str, list[Definition]]) -> list[str]:
    functions = dict.fromkeys(each.function for kernel in probes.values() for each in kernel)
    return [
        f"TOOL={options.tool}",
        f"OUTPUT={shlex.quote(str(options.output))}",
        f"FORCE=${{FORCE:-{'1' if options.force else ''}}}",
        f"SECONDS_AT_MOST={'' if options.duration is None else f'{options.duration:g}'}",
        f"BUFFER_MIB=${{BUFFER_MIB:-{options.buffer_mib}}} # of each CPU",
        f"FUNCTIONS={shlex.quote('|'.join(functions))}",
    ]


def _probes(probes: Mapping[str, list[Definition]]) -> list[str]:
    """Calls of the script's ``probe``, for the kernel that it finds itself on."""
    calls = {
        kernel: [
            f"probe {'needed' if each.needed else 'optional'} {each.function} {shlex.quote(each.text)}"
            for each in definitions
        ]
        for kernel, definitions in probes.items()
    }
    if len(calls) < 2:
        return [call for own in calls.values() for call in own]
    *others, last = calls
    lines = ['case "$SYMBOLS" in']
    for kernel in others:
        lines += [f"*' {TELLING[kernel]} '*)", *(f"    {call}" for call in calls[kernel]), "    ;;"]
    return [*lines, "*)", *(f"    {call}" for call in calls[last]), "    ;;", "esac"]
