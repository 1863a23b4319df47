"""Colours that colour-blind readers tell apart (Okabe and Ito, 2008; their yellow is too pale on white).

No figure relies on colour alone: strategies have a row of their own, lines have a dash of their own.
"""

from __future__ import annotations

from typing import Final

from schemas.walks import OBSERVED

INK: Final = "ink"
"""Stands for the colour of text, which the page knows: dark on light paper, light on dark paper."""

OKABE_ITO: Final = ("#D55E00", "#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")

_STRATEGIES: Final = {
    OBSERVED: INK,
    **dict(zip(("full", "addr", "vm_pgoff", "linear"), OKABE_ITO, strict=False)),
}
_OTHERS: Final = OKABE_ITO[4:]


def strategy_colour(name: str, place: int) -> str:
    """Colour of a strategy, the same in every figure; ``place`` chooses for strategies of the user."""
    return _STRATEGIES.get(name, _OTHERS[place % len(_OTHERS)])
