"""The compiled form of ``model_run.run``; numba is imported here and nowhere else, and only when asked for.

The functions of the modules below are compiled as they stand, each in a copy whose globals name the
compiled ones. Machine code is kept on disk (numba's cache, beside the source or in the user's cache
directory); its key holds a hash of the sources, as numba looks only at the file of the entry.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from replay.model_ops import Operations
    from replay.model_state import State

MODULES: Final = (
    *("model_state", "model_rules", "merge_rules", "model_ops", "model_map", "model_rmap"),
    *("model_vma", "model_merge", "model_spaces", "model_calls", "model_mremap", "model_run"),
)


@cache
def compiled_run() -> Callable[[State, int, Operations], int]:
    """``model_run.run`` as machine code; compiled at its first call, unless the cache has it."""
    njit = import_module("numba").njit
    options = {"_nrt": False, "error_model": "numpy"}

    modules = [import_module(f"replay.{name}") for name in MODULES]
    digest = hashlib.sha256()
    compiled: dict[str, Any] = {}
    spaces: list[dict[str, Any]] = []
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
        own = dict(vars(module))
        spaces.append(own)
        for name, function in vars(module).items():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                copy = FunctionType(function.__code__, own, name, function.__defaults__)
                compiled[name] = njit(**options)(copy)
    for own in spaces:
        own.update({name: value for name, value in compiled.items() if name in own})
    stamp = int.from_bytes(digest.digest()[:7])

    def run(state: State, first: int, ops: Operations) -> int:
        """``stamp`` is in the closure, and so in the key of the cache."""
        return machine_run(state, first, ops) if stamp else -1  # type: ignore[name-defined]  # noqa: F821

    entry = FunctionType(run.__code__, {"machine_run": compiled["run"]}, "run", None, run.__closure__)
    entry.__module__, entry.__qualname__ = __name__, "compiled_run.run"
    machine: Callable[[State, int, Operations], int] = njit(cache=True, **options)(entry)
    return machine
