"""Which strategies are replayed: built in, written on the command line, or installed by a package."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from replay.strategies import BUILTIN, Strategy
from replay.walks.expressions import parse_strategy
from replay.walks.observed import NAME as OBSERVED
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP: Final = "replay.strategies"
"""Entry point group: each entry names a ``replay.strategies.Strategy``."""


def chosen(texts: Sequence[str]) -> list[Strategy]:
    """The strategies that these texts ask for, in this order, each once.

    Args:
        texts: ``NAME`` of a built-in or installed strategy, ``NAME=EXPR`` or ``NAME=FIRST..LAST``.

    Raises:
        UsageError: A name is not known or given twice with different meanings, or an expression is wrong.
    """
    found: dict[str, Strategy] = {}
    for text in dict.fromkeys(texts):
        strategy = parse_strategy(text) if "=" in text else _named(text)
        taken = strategy.name in found or ("=" in text and strategy.name in (*BUILTIN, OBSERVED))
        if taken:
            raise UsageError(
                f"the name {strategy.name!r} is taken",
                where=f"--strategy {text}",
                hint="give your strategy another name",
            )
        found[strategy.name] = strategy
    return list(found.values())


def _named(name: str) -> Strategy:
    if name in BUILTIN:
        return BUILTIN[name]
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in installed:
        strategy = installed[name].load()
        if isinstance(strategy, Strategy):
            return strategy
        raise UsageError(
            f"the installed strategy {name!r} is no Strategy",
            where=f"entry point {installed[name].value}",
            hint="it must name an instance of replay.strategies.Strategy",
        )
    raise UsageError(
        f"no strategy is called {name!r}",
        where="--strategy",
        hint=f"known are {', '.join((*BUILTIN, *installed))}; or write NAME=EXPR",
    )
