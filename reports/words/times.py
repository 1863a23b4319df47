"""What the documents say of the fit of durations: tables ``time_fit``, ``iteration_cost`` and ``lost``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.grid import Grid, grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]


def interval(fits: Rows) -> str:
    """What a predicted time is, and how sure; results of an older version do not hold the fit."""
    if not fits:
        return "Time_ms of a strategy is a fit to the durations of this capture's walks."
    row = fits[0]
    low, high = row["ratio_low"], row["ratio_high"]
    return (
        f"Time_ms of a strategy: predicted by a fit to the durations of {row['walks']:,} walks; "
        f"90 % of them took {low:.2g} to {high:.2g} times what it gives."
    )


def sentences(fits: Rows, costs: Rows) -> list[str]:
    """What the fit gives, what it leaves out, and what an iteration took in trees of each size."""
    if not fits:
        return []
    row = fits[0]
    of = f"{row['parts']:,} parts of {row['walks']:,}" if row.get("parts") else f"{row['walks']:,}"
    said = [
        f"Fit over {of} walks: {row['walk_us']:.1f} us a walk, {row['loop_us']:.1f} us a loop, "
        f"{row['iteration_us']:.3f} us an iteration, {row['call_us']:.1f} us a call of rmap_one(); "
        f"half of them are off by less than {100 * row['median_error']:.0f} %."
    ]
    if row["held_up_ns"] is None:
        said.append("The capture does not tell time off the CPU and waits for locks: durations include them.")
    elif row["walks_held_up"]:
        said.append(
            f"{row['walks_held_up']:,} of these walks were off the CPU or waited for a lock, for "
            f"{row['held_up_ns'] / 1e6:,.3f} ms together, which is left out."
        )
    if costs:
        each = (f"{one['iteration_us']:.3g} us at {_size(one)}" for one in costs)
        said.append(f"An iteration took {', '.join(each)} iterations a loop (medians).")
    return said


def _size(cost: Mapping[str, Any]) -> str:
    return f"{cost['size_least']:,}-{cost['size_most']:,}" if cost["size_most"] > 1 else "1"


def iteration_costs(costs: Rows) -> Grid:
    """What an iteration took, a row a size of tree."""
    rows = [
        [
            _size(one),
            one["walks"],
            one["iterations"],
            *(one[f"iteration{end}_us"] for end in ("_low", "", "_high")),
        ]
        for one in costs
    ]
    columns = (
        "iterations a loop=size,walks:n,iterations:n,lower quartile us=low:n,median us=median:n,"
        "upper quartile us=high:n"
    )
    caption = "Time of a walk less what the fit gives for all but its iterations, by its iterations."
    return grid("iteration_cost", columns, rows, caption, "What an iteration took, by the size of the trees")


def losses(lost: Rows) -> list[str]:
    """What waiting tasks lose under each strategy, in one sentence; empty: not predicted."""
    known = [row for row in lost if row["evidence"] == "predicted" and row["lost_ns"] is not None]
    said = [
        f"{row['strategy']} {row['lost_ns'] / 1e6:,.3f} ms ({row['lost_least_ns'] / 1e6:,.3f} to "
        f"{row['lost_most_ns'] / 1e6:,.3f})"
        for row in known
    ]
    return [f"Lost by prediction: {'; '.join(said)}."] if said else []


def lost_table(lost: Rows) -> Grid:
    """Time lost by waiting, observed and predicted."""
    names = ("waits", "lost_ns", "lost_least_ns", "lost_most_ns", "behind_walks_ns")
    rows = [[row["strategy"], *(row[name] for name in names), row["evidence"]] for row in lost]
    columns = (
        "strategy,waits:n,lost ms=lost_ns:ms,at least ms=lost_least_ns:ms,at most ms=lost_most_ns:ms,"
        "of it while a walk ran ms=behind_walks_ns:ms,evidence"
    )
    caption = (
        "Predicted: each wait behind a walk changes as that walk does. Waits that a slower walk would add "
        "are not counted. -: no fit."
    )
    return grid("lost", columns, rows, caption, "What waiting costs under each strategy")
