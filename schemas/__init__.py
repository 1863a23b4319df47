"""The contract between the stages: what every table looks like, and how a stage may fail.

``TABLES`` holds every table by name. The tables whose name begins with ``ev_`` hold events: the
``captures`` package makes them, the ``replay`` package reads them. The others hold results:
``replay`` makes them, ``reports`` reads them and ``tables/NAME.parquet`` keeps them.

The errors are in ``schemas.errors``. Importing this package alone loads neither pyarrow nor a table,
so a command line can know the errors before it needs the tables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.registry import TABLES
    from schemas.table import Column, Table

__all__ = ["TABLES", "Column", "Table"]

_HOMES = {
    "TABLES": "schemas.registry",
    "Column": "schemas.table",
    "Table": "schemas.table",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
