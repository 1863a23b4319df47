"""Replay the rmap walks of a Linux capture, exactly, under every page-offset strategy.

``analyze(path, options)`` reads a capture and returns its result tables; the command line
(``replay --help``) does the same and writes them. Importing this package loads nothing heavy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replay.options import AnalyzeOptions
    from replay.pipeline import Analysis, analyze

__all__ = ["Analysis", "AnalyzeOptions", "__version__", "analyze"]

__version__ = "0.1.0"

# `schemas`, `captures` and `reports` are common names: say so when another package of that name comes
# first on the path, instead of failing inside it. find_spec() runs nothing of the foreign package.
_HOME = Path(__file__).resolve().parent.parent
for _name in ("schemas", "captures", "reports"):
    _spec = importlib.util.find_spec(_name)
    _found = Path(_spec.origin).resolve() if _spec is not None and _spec.origin is not None else None
    if _found != _HOME / _name / "__init__.py":
        raise ImportError(
            f"replay needs its own package `{_name}` from {_HOME / _name}, but Python finds "
            f"{_found or 'none'}; run from another directory, or install replay into its own environment"
        )

_HOMES = {
    "Analysis": "replay.pipeline",
    "AnalyzeOptions": "replay.options",
    "analyze": "replay.pipeline",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
