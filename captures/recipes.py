"""The probe recipes in ``captures/probes``: which definitions and stock events make a capture that answers.

``NAME.probes`` holds definitions for dynamic_events, ``stock.events`` the stock events beside them; each says
itself how it is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "probes"

KERNELS: Final = {"6.12": "kernels up to 7.2", "7.3": "kernels from 7.3 on"}
"""Sets of names that the kernel's functions and fields have had, and where."""

_DEFINITION: Final = re.compile(
    r"(?P<kind>p|r\d*):(?P<system>\w+)/(?P<name>\w+) (?P<function>\w+)(?P<rest>.*)"
)


@dataclass(frozen=True)
class Probe:
    """One definition.

    Attributes:
        name: ``system:name`` of the event.
        function: The kernel function that it is on.
        is_return: Whether it is the function's return.
        fields: Names of its fields.
    """

    name: str
    function: str
    is_return: bool
    fields: tuple[str, ...]


def recipe_path(profile: str, kernel: str) -> Path:
    """File with the definitions of ``exact`` or ``truth`` for one of ``KERNELS``."""
    return FOLDER / f"{profile}-{kernel}.probes"


def read_recipe(path: Path) -> tuple[Probe, ...]:
    """The definitions of a recipe, in their order.

    Raises:
        ValueError: A line is neither a comment nor a definition.
    """
    probes = []
    for line in _lines(path):
        found = _DEFINITION.fullmatch(line)
        if found is None:
            raise ValueError(f"{path.name}: not a definition: {line}")
        fields = tuple(each.partition("=")[0] for each in found["rest"].split())
        probes.append(
            Probe(f"{found['system']}:{found['name']}", found["function"], found["kind"] != "p", fields)
        )
    return tuple(probes)


def stock_events() -> tuple[str, ...]:
    """Patterns ``system:name`` of the stock events, in their order."""
    return tuple(line.split()[0] for line in _lines(FOLDER / "stock.events"))


def _lines(path: Path) -> list[str]:
    """Lines without comments; empty ones are left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
