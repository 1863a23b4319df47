"""How long a walk takes: fitted to the walks whose durations the capture holds, never guessed.

    duration = a + b * inner loops + c * iterations + d * rmap_one calls

A duration is what the capture holds less what its events tell of waits for locks and time off the CPU
(``held_up``). It still has outliers upwards (interrupts, waits that no event tells), so the fit is by
least squares with weights that fall with the error (Huber), on errors relative to the prediction: a walk
of 20 microseconds counts as much as one of 200 milliseconds. No term may be negative. The interval of a
prediction is what holds 90 % of the fitted walks.

Where the counts of whole walks rise together, the walks are cut at their page-table events and the parts are
fitted (``segments``). What these leave open of each term is in the interval too: it holds nine of ten fits to
as many walks drawn from these at random (bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Real = NDArray[np.float64]

TERMS: Final = ("walk", "inner loop", "iteration", "rmap_one call")
"""What the coefficients are per: one walk, one inner loop, one iteration, one rmap_one call."""

LEAST_WALKS: Final = 12
"""Fewer walks are not fitted: three times the number of terms."""

LEAST_OWN: Final = 0.1
"""Least share of the iterations' variation that loops and calls do not explain."""

LEAST_OF_A_SIZE: Final = 5
"""Fewer walks do not tell what an iteration costs in trees of a size."""

LEAST_TO_CUT: Final = 2.0
"""Iterations a loop, of half of the walks, from which on the walks are cut."""

MOSTLY: Final = 0.5
"""Walks tell what an iteration costs if iterations are at least this share of their time."""

FARTHEST: Final = 4.0
"""A walk whose loops have more iterations than this times the longest that were fitted is not predicted: what
an iteration costs in a tree of that size is not in the capture."""

DRAWN: Final = 40
"""Fits to walks drawn at random."""

_ROUNDS_DRAWN: Final = 8
_SLICE: Final = 1 << 16
_COUNTS: Final = ["loops", "iterations_total", "rmap_one_calls"]
_HUBER: Final = 1.345
_ROUNDS: Final = 30
_SMALLEST_NS: Final = 1000.0


@dataclass(frozen=True)
class Fit:
    """A fitted cost of walks.

    Attributes:
        coefficients: ns for each of ``TERMS``; 0: the capture shows no such cost.
        low, high: Factors on a prediction between which 90 % of the fitted walks lie.
        walks: Number of walks fitted.
        median_error: Median of the relative error, without sign.
        longest: Most iterations of a loop, on average over its walk, in the fitted walks.
        held_up: Of the walks, those that were held up for a time that is known and left out.
        held_up_ns: That time together; None: the capture has no events that tell it.
        parts: Parts of walks that were fitted; 0: whole walks were.
        drawn: Coefficients of fits to walks drawn at random; empty: whole walks were fitted.
        drawn_least: The same without the terms that no part shows by itself.
    """

    coefficients: tuple[float, ...]
    low: float
    high: float
    walks: int
    median_error: float
    longest: float
    held_up: int = 0
    held_up_ns: int | None = None
    parts: int = 0
    drawn: tuple[tuple[float, ...], ...] = ()
    drawn_least: tuple[tuple[float, ...], ...] = ()

    def predict(self, terms: Real) -> Real:
        """Durations in ns; one row of ``terms`` (inner loops, iterations, rmap_one calls) a walk."""
        predicted: Real = _design(terms) @ np.array(self.coefficients)
        return predicted

    def interval(self, terms: Real) -> tuple[Real, Real]:
        """Least and most of durations in ns, of nine in ten; ``terms`` as in ``predict``."""
        predicted = self.predict(terms)
        low, high = predicted, predicted
        if self.drawn:
            low = np.minimum(low, _quantile(terms, self.drawn_least, 0.05))
            high = np.maximum(high, _quantile(terms, self.drawn, 0.95))
        return low * self.low, high * self.high


def _quantile(terms: Real, drawn: tuple[tuple[float, ...], ...], share: float) -> Real:
    """What a share of the drawn fits gives at most, for each walk."""
    fits = np.array(drawn).T
    told = [
        np.quantile(_design(terms[at : at + _SLICE]) @ fits, share, axis=1)
        for at in range(0, len(terms), _SLICE)
    ]
    return np.concatenate([*told, np.empty(0)])


def untimed() -> dict[str, pl.Expr]:
    """Columns of ``walk`` that are filled once all walks are known."""
    names = ("held_up_ns", "predicted_ns", "predicted_low_ns", "predicted_high_ns")
    return dict.fromkeys(names, pl.lit(None, pl.Int64))


def fit(terms: Real, duration_ns: Real) -> Fit | None:
    """Fit the cost of walks.

    Args:
        terms: Inner loops, iterations, rmap_one calls that the kernel made: three columns, a row a walk.
        duration_ns: Their observed durations.

    Returns:
        The fit; None: too few walks, or all alike, to tell what iterations cost.
    """
    if len(duration_ns) < LEAST_WALKS:
        return None
    design = _design(terms)
    if not _separable(design, np.maximum(duration_ns, _SMALLEST_NS)):
        return None
    return _fit_of(_robust(design, duration_ns), terms, duration_ns)


def fit_parts(parts: pl.DataFrame, terms: Real, duration_ns: Real) -> Fit | None:
    """Fit the cost of walks by their parts.

    Args:
        parts: ``segments.segments``: of these walks, or of some of them.
        terms: Inner loops, iterations, rmap_one calls of the walks, as in ``fit``.
        duration_ns: Their observed durations.

    Returns:
        The fit; None: the parts do not tell what iterations cost either.
    """
    design = _numbers(parts, ["walk", *_COUNTS])
    took = parts["took_ns"].to_numpy().astype(np.float64)
    if not _separable(design, np.maximum(took, _SMALLEST_NS)):
        return None
    of_walk = parts["walk_id"].rle_id().to_numpy()
    begins = np.searchsorted(of_walk, np.arange(of_walk[-1] + 2))
    rows = [np.arange(begins[walk], begins[walk + 1]) for walk in range(len(begins) - 1)]
    random = np.random.default_rng(0)
    drawn = np.empty((DRAWN, len(TERMS)))
    for fit_ in drawn:
        some = np.concatenate([rows[walk] for walk in random.integers(0, len(rows), len(rows))])
        fit_[:] = _robust(design[some], took[some], _ROUNDS_DRAWN)
    shows = np.quantile(drawn, 0.05, axis=0) > 0
    if not shows[TERMS.index("iteration")]:
        return None
    shows &= _measured(design, took)
    coefficients = np.zeros(len(TERMS))
    coefficients[shows] = _robust(design[:, shows], took)
    found = _fit_of(coefficients, terms, duration_ns)
    least, most = (tuple(tuple(map(float, each)) for each in some) for some in (drawn * shows, drawn))
    return replace(found, parts=len(parts), drawn=most, drawn_least=least)


def _measured(design: Real, took: Real) -> NDArray[np.bool_]:
    """Whether each term but the iteration's is most of some parts, and these took about what the fit gives.

    Else it may be what a straight line leaves at its end, which tells nothing of walks that are far shorter.
    """
    coefficients = _robust(design, took)
    predicted = np.maximum(design @ coefficients, _SMALLEST_NS)
    measured = np.ones(len(TERMS), np.bool_)
    for term, name in enumerate(TERMS):
        mostly = design[:, term] * coefficients[term] >= MOSTLY * predicted
        if name != "iteration":
            ratio = float(np.median(took[mostly] / predicted[mostly])) if mostly.any() else 0.0
            measured[term] = mostly.sum() >= LEAST_OF_A_SIZE and MOSTLY <= ratio <= 1 / MOSTLY
    return measured


def _robust(design: Real, duration_ns: Real, rounds: int = _ROUNDS) -> Real:
    """The coefficients that fit best, not led astray by the few that were held up."""
    weights = np.ones(len(duration_ns))
    scale = np.maximum(duration_ns, _SMALLEST_NS)
    coefficients = np.zeros(design.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights) / scale
        before, coefficients = coefficients, _nonnegative(design * root[:, None], duration_ns * root)
        predicted = design @ coefficients
        scale = np.maximum(predicted, _SMALLEST_NS)
        error = (duration_ns - predicted) / scale
        spread = 1.4826 * float(np.median(np.abs(error))) or 1e-9
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(error), 1e-12))
        if np.allclose(before, coefficients, rtol=1e-6):
            break
    # the held-up ones pull to one side: leave out what is far off and fit the rest again
    near = np.abs(error) <= 4 * spread + 1e-3
    return _nonnegative(design[near] / scale[near, None], duration_ns[near] / scale[near])


def _fit_of(coefficients: Real, terms: Real, duration_ns: Real) -> Fit:
    """The fit with these coefficients, and how well it does on the walks."""
    ratio = duration_ns / np.maximum(_design(terms) @ coefficients, _SMALLEST_NS)
    low, high = np.quantile(ratio, (0.05, 0.95))
    return Fit(
        tuple(float(one) for one in coefficients),
        float(low),
        float(high),
        len(duration_ns),
        float(np.median(np.abs(ratio - 1))),
        float(np.max(terms[:, 1] / np.maximum(terms[:, 0], 1))),
    )


def fitted(
    walk: pl.DataFrame, native: str | None, cut: Callable[[pl.DataFrame, str], pl.DataFrame]
) -> tuple[Fit | None, str]:
    """The fit over the walks of a capture.

    Args:
        walk: Table ``walk``.
        native: The strategy that the kernel ran, whose counts the durations belong to; None: not known.
        cut: ``segments.segments`` of some of these walks.

    Returns:
        The fit, and why there is none (empty: there is one).
    """
    if walk["observed_ns"].null_count() == len(walk):
        return None, "the capture holds no duration of a walk"
    if native is None:
        return None, "which strategy the kernel runs is not known"
    own = _own(walk, native)
    if len(own) < LEAST_WALKS:
        return None, f"{len(own)} walks have a duration and all counts; a fit takes {LEAST_WALKS}"
    terms, took = _numbers(own, _COUNTS), own["took"].to_numpy().astype(np.float64)
    model = fit(terms, took)
    # Where most loops have one iteration, the parts of walks tell no more than the walks.
    if model is None and float(np.median(terms[:, 1] / np.maximum(terms[:, 0], 1))) >= LEAST_TO_CUT:
        model = fit_parts(cut(own, native), terms, took)
    if model is None:
        return (
            None,
            "iterations, loops and calls of the walks, and of their parts between page-table events, rise "
            "together: what one of them costs does not show",
        )
    held = own["held_up_ns"]
    known = None if held.null_count() == len(held) else int(held.sum())
    return replace(model, held_up=int((held.fill_null(0) > 0).sum()), held_up_ns=known), ""


def predict_walks(walk: pl.DataFrame, model: Fit | None) -> pl.DataFrame:
    """Fill ``predicted_ns`` and its interval of the walks of every strategy.

    Args:
        walk: Table ``walk``.
        model: The fit; None: there is none.

    Returns:
        ``walk`` with ``predicted_ns``, ``predicted_low_ns`` and ``predicted_high_ns``; null: no fit, counts
        not known, or too far from what was fitted.
    """
    if model is None:
        return walk
    ratio = pl.col("iterations_total") / pl.col("loops")
    known = pl.all_horizontal(pl.col(_COUNTS).is_not_null()) & (ratio.fill_nan(0) <= FARTHEST * model.longest)
    terms = _numbers(walk.with_columns(pl.col(_COUNTS).fill_null(0)), _COUNTS)
    low, high = model.interval(terms)
    asked = known & (pl.col("strategy") != "observed")
    told = {"predicted_ns": model.predict(terms), "predicted_low_ns": low, "predicted_high_ns": high}
    return walk.with_columns(
        pl.when(asked).then(pl.Series(values).round().cast(pl.Int64)).alias(name)
        for name, values in told.items()
    )


def fit_tables(walk: pl.DataFrame, native: str | None, model: Fit | None) -> dict[str, pl.DataFrame]:
    """Tables ``time_fit`` and ``iteration_cost``; both empty: no fit.

    Args:
        walk: Table ``walk``.
        native: The strategy that was fitted.
        model: Its fit; None: there is none.
    """
    if model is None or native is None:
        return {name: pl.DataFrame(TABLES[name].empty()) for name in ("time_fit", "iteration_cost")}
    once, each, _, call = model.coefficients
    per_us = (ns / 1000 for ns in model.coefficients)
    costs = dict(zip(("walk_us", "loop_us", "iteration_us", "call_us"), per_us, strict=True))
    row = {
        "strategy": native,
        "walks": model.walks,
        "parts": model.parts or None,
        **costs,
        "ratio_low": model.low,
        "ratio_high": model.high,
        "median_error": model.median_error,
        "size_max": model.longest,
        "walks_held_up": model.held_up,
        "held_up_ns": model.held_up_ns,
    }
    rest = once + each * pl.col("loops") + call * pl.col("rmap_one_calls")
    size = (pl.col("iterations_total") / pl.col("loops")).floor().cast(pl.Int64)
    cost = (pl.col("took") - rest) / pl.col("iterations_total") / 1000
    by_size = (
        _own(walk, native)
        .filter(pl.col("iterations_total") > 0, pl.col("took") - rest >= MOSTLY * pl.col("took"))
        .with_columns(size=size, cost=cost)
        .filter(pl.col("size") > 0)
        .with_columns(power=pl.col("size").log(2).add(1e-9).floor().cast(pl.UInt32))
        .group_by("power")
        .agg(
            walks=pl.len().cast(pl.Int64),
            iterations=pl.col("iterations_total").sum(),
            iteration_us=pl.col("cost").median(),
            iteration_low_us=pl.col("cost").quantile(0.25, "linear"),
            iteration_high_us=pl.col("cost").quantile(0.75, "linear"),
        )
        .filter(pl.col("walks") >= LEAST_OF_A_SIZE)
        .sort("power")
        .with_columns(size_least=pl.lit(2, pl.Int64).pow(pl.col("power")))
        .with_columns(size_most=2 * pl.col("size_least") - 1)
    )
    return {"time_fit": pl.DataFrame([row]), "iteration_cost": by_size}


def predict_loops(loop: pl.DataFrame, model: Fit | None) -> pl.DataFrame:
    """Fill ``predicted_ns`` of the inner loops: what of a walk's time the fit gives to a loop of its own.

    Args:
        loop: Table ``loop``.
        model: The fit over the walks; None: there is none.

    Returns:
        ``loop`` with ``predicted_ns``; null: no fit, counts not known, or more iterations than were fitted.
    """
    if model is None:
        return loop
    _, each, iteration, call = model.coefficients
    known = (pl.col("strategy") != "observed") & (pl.col("iterations") <= FARTHEST * model.longest)
    predicted = each + iteration * pl.col("iterations") + call * pl.col("rmap_one_calls")
    return loop.with_columns(predicted_ns=pl.when(known).then(predicted.round().cast(pl.Int64)))


def _own(walk: pl.DataFrame, native: str) -> pl.DataFrame:
    """The walks of the strategy that the kernel ran, of which all is known; ``took``: ns not held up."""
    own = walk.filter(pl.col("strategy") == native).drop_nulls([*_COUNTS, "observed_ns"])
    return own.with_columns(took=pl.col("observed_ns") - pl.col("held_up_ns").fill_null(0))


def _numbers(frame: pl.DataFrame, columns: list[str]) -> Real:
    return frame.select(pl.col(columns).cast(pl.Float64)).to_numpy()


def _design(terms: Real) -> Real:
    return np.column_stack((np.ones(len(terms)), terms))


def _separable(design: Real, duration_ns: Real) -> bool:
    """Whether the walks differ enough to tell the cost of an iteration from that of a loop or a call."""
    scaled = design / duration_ns[:, None]
    iterations, others = scaled[:, 2], np.delete(scaled, 2, axis=1)
    explained = others @ np.linalg.lstsq(others, iterations, rcond=None)[0]
    return bool(np.linalg.norm(iterations - explained) > LEAST_OWN * np.linalg.norm(iterations))


def _nonnegative(design: Real, target: Real) -> Real:
    """Least squares without negative coefficients: the most negative one is dropped until none is."""
    active = list(range(design.shape[1]))
    while active:
        found = np.linalg.lstsq(design[:, active], target, rcond=None)[0]
        if (found >= 0).all():
            break
        active.pop(int(np.argmin(found)))
    result = np.zeros(design.shape[1])
    if active:
        result[active] = found
    return result
