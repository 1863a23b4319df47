"""The compiled form of ``model.run.run``; numba is imported here and nowhere else, and only when asked for.

The functions of the modules below are compiled as they stand, each in a copy whose globals name the
compiled ones. In machine code a ``State`` is one address, of a list of (address, length) of its tables:
functions that pass a dozen arrays to each other take longer to compile, and to run. Machine code is kept on
disk (numba's cache, beside the source or in the user's cache directory); the name of the entry holds a hash
of the sources, as numba looks only at the file that the entry is in.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from replay.model.state import CACHE_LINE, State, record_type

if TYPE_CHECKING:
    from replay.model.kinds import Operations

MODULES: Final = (
    *("model.state", "state.kernel", "state.merge_rules", "model.kinds", "model.map", "model.rmap"),
    *("model.vma", "model.failed", "model.merge", "model.spaces", "model.calls", "model.locks"),
    *("model.mremap", "model.ahead", "model.run"),
)
_OPTIONS: Final = {"_nrt": False, "error_model": "numpy"}
_INNER: Final = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Of functions that only compiled ones call."""


def is_compiled() -> bool:
    """Whether the machine code is on disk."""
    machine = _machine()
    folder = Path(machine.stats.cache_path)
    return any(folder.glob(f"jit.{machine.py_func.__qualname__}-*.nbi"))


def compiled_run(state: State, first: int, ops: Operations) -> int:
    """``model.run.run`` over arrays; compiled at its first call, unless the cache has it."""
    tables = [getattr(state, name) for name in State._fields]
    pairs = np.array([(table.ctypes.data, len(table)) for table in tables], np.int64).ravel()
    done: int = _machine()(pairs.ctypes.data, first, ops)
    return done


@cache
def _machine() -> Any:
    """The entry: (address of the list of tables, first operation, operations)."""
    njit = import_module("numba").njit
    modules = [import_module(f"replay.{name}") for name in MODULES]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    compiled: dict[str, Any] = {"state_at": _state_type(), "prefetch": _prefetch()}
    own_code = tuple(compiled)
    spaces: list[dict[str, Any]] = []
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
        own = dict(vars(module))
        spaces.append(own)
        for name, function in vars(module).items():
            if (
                isinstance(function, FunctionType)
                and function.__module__ == module.__name__
                and name not in own_code
            ):
                copy = FunctionType(function.__code__, own, name, function.__defaults__)
                compiled[name] = njit(**_INNER)(copy)
    for own in spaces:
        own.update({name: value for name, value in compiled.items() if name in own})

    def entry(address: int, first: int, ops: Operations) -> int:
        return run(state_at(address), first, ops)  # type: ignore[name-defined,no-any-return]  # noqa: F821

    named = FunctionType(entry.__code__, {**compiled, "__name__": __name__})
    named.__qualname__ = f"run_{digest.hexdigest()[:16]}"
    return njit(cache=True, **_OPTIONS)(named)


def _state_type() -> Any:
    """Tell numba what a ``State`` is in machine code; returns the function that makes one of an address."""
    types, extending = import_module("numba.types"), import_module("numba.extending")
    lowering, templates = import_module("numba.core.imputils"), import_module("numba.core.typing.templates")
    arrays, ir = import_module("numba.np.arrayobj"), import_module("llvmlite.ir")
    from_dtype = import_module("numba").from_dtype
    tables = {name: types.Array(from_dtype(record_type(name)), 1, "C") for name in State._fields}

    class StateType(types.Type):  # type: ignore[misc, name-defined]
        """One machine word."""

        def __init__(self) -> None:
            super().__init__(name="replay.State")

    @extending.register_model(StateType)
    class StateModel(extending.models.PrimitiveModel):  # type: ignore[misc, name-defined]
        """The data model of a word."""

        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, ir.IntType(64))

    @templates.infer_getattr
    class StateTables(templates.AttributeTemplate):  # type: ignore[misc, name-defined]
        """Its attributes are the tables."""

        key = StateType

        def generic_resolve(self, _state: Any, name: str) -> Any:
            return tables[name]

    @lowering.lower_getattr_generic(StateType)  # type: ignore[untyped-decorator]
    def table_of(context: Any, builder: Any, _type: Any, state: Any, name: str) -> Any:
        table = arrays.make_array(tables[name])(context, builder)
        pairs = builder.inttoptr(state, state.type.as_pointer())
        place = 2 * State._fields.index(name)
        words = [builder.load(builder.gep(pairs, [ir.Constant(state.type, place + each)])) for each in (0, 1)]
        for word in words:
            # Tables stay where they are during a run, whatever is written to them.
            word.set_metadata("invariant.load", builder.module.add_metadata([]))
        address, length = words
        item_bytes = ir.Constant(state.type, record_type(name).itemsize)
        data = builder.inttoptr(address, table.data.type)
        arrays.populate_array(table, data, [length], [item_bytes], item_bytes, None)
        return table._getvalue()

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def state_at(_context: Any, address: Any) -> Any:
        return StateType()(types.intp), lambda _context, _builder, _signature, args: args[0]

    return state_at


def _prefetch() -> Any:
    """``model.ahead.prefetch`` as instructions: one for each cache line of the record."""
    types, extending = import_module("numba.types"), import_module("numba.extending")
    arrays, ir = import_module("numba.np.arrayobj"), import_module("llvmlite.ir")

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def prefetch(_context: Any, table: Any, slot: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = arrays.make_array(table)(context, builder, args[0]).data
            word, byte = ir.IntType(64), ir.IntType(8).as_pointer()
            start = builder.bitcast(
                builder.gep(data, [context.cast(builder, args[1], slot, types.intp)]), byte
            )
            kind = ir.FunctionType(ir.VoidType(), [byte, *[ir.IntType(32)] * 3])
            ask = builder.module.globals.get("llvm.prefetch.p0") or ir.Function(
                builder.module, kind, "llvm.prefetch.p0"
            )
            options = [ir.Constant(ir.IntType(32), option) for option in (1, 3, 1)]
            for line in range(0, table.dtype.size, CACHE_LINE):
                builder.call(ask, [builder.gep(start, [ir.Constant(word, line)]), *options])
            return context.get_dummy_value()

        return types.void(table, slot), generate

    return prefetch
