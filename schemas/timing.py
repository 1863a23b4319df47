"""Result tables of durations: what walks, loops, iterations and calls take."""

from __future__ import annotations

from typing import Final

from schemas.kinds import count, nanoseconds, real, text
from schemas.table import Table
from schemas.walks import STRATEGY_DOC

_FIT: Final = "replay: fit over the walks of this capture"
_CLEAN: Final = "observed_ns less held_up_ns"

TIME_FIT: Final = Table(
    name="time_fit",
    version="1.1",
    doc="The fit that predictions are from: walk_us + loop_us * loops + iteration_us * iterations + "
    f"call_us * rmap_one_calls = {_CLEAN}; robust least squares, no term negative. One row, or none: no fit.",
    columns=(
        text("strategy", f"{STRATEGY_DOC} The one that the kernel ran.", _FIT),
        count("walks", "Walks fitted.", _FIT),
        real("walk_us", "Once a walk; 0: the walks show no such cost.", _FIT, unit="us"),
        real("loop_us", "Once an inner loop; 0: none shows.", _FIT, unit="us"),
        real("iteration_us", "Once an iteration; 0: none shows.", _FIT, unit="us"),
        real("call_us", "Once a call of rmap_one(); 0: none shows.", _FIT, unit="us"),
        real("ratio_low", "5 % of the fitted walks took less than this times what the fit gives.", _FIT),
        real("ratio_high", "5 % of the fitted walks took more than this times what the fit gives.", _FIT),
        real("median_error", "Half of the fitted walks are off by less than this share.", _FIT),
        real(
            "size_max",
            "Most iterations a loop, on average over its walk, in the fitted walks. Walks and loops of more "
            "than four times that are not predicted.",
            _FIT,
        ),
        count("walks_held_up", "Walks fitted that were held up for a time that is known and left out.", _FIT),
        nanoseconds(
            "held_up_ns",
            "Their held_up_ns together.",
            "replay: held_up",
            null="the capture has no sched_switch and no contention events: durations include such times",
        ),
        count(
            "parts",
            "Parts of these walks, cut at their page-table events, that the terms were fitted to; the "
            "ratios and the error are those of the walks.",
            "replay: segments",
            null="the terms were fitted to the walks",
        ),
    ),
)

ITERATION_COST: Final = Table(
    name="iteration_cost",
    version="1.0",
    doc="What an iteration took, by the size of the trees: of fitted walks of which iterations are most of "
    f"the time ({_CLEAN}), that time less what time_fit gives for the rest, by iterations. One row a power "
    "of two that has five such walks.",
    columns=(
        count("size_least", "Least iterations a loop, on average over its walk, inclusive.", _FIT),
        count("size_most", "Most of them, inclusive of its fractions: 2 * size_least - 1.", _FIT),
        count("walks", "Walks.", _FIT),
        count("iterations", "Their iterations together.", _FIT),
        real("iteration_us", "Median over these walks.", _FIT, unit="us"),
        real("iteration_low_us", "A quarter of these walks took less an iteration.", _FIT, unit="us"),
        real("iteration_high_us", "A quarter of these walks took more an iteration.", _FIT, unit="us"),
    ),
)

TABLES: Final = (TIME_FIT, ITERATION_COST)
