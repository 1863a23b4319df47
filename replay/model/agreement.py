"""How well the modelled trees agree with the probed ones, as a number.

Both are compared after each operation (a system call, a fault, a fork, an exit): the probes see the
steps inside of one, which a model has no time for. So a probed change counts at the place where its
operation is over, as the model's does; the share is taken over all probed changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.model.agreement_causes import CAUSES, IN_CALL, NEVER, explained, unseen
from replay.model.births import seen_births
from replay.model.kinds import PAGE
from replay.model.ops import operations
from replay.state.event_pairs import own_faults
from replay.state.kernel import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.state.kernel import KernelRules

_INTERVAL: Final = ("vm_start", "vm_end", "first_pgoff")


@dataclass(frozen=True)
class Agreement:
    """How far two reconstructions of the same trees agree.

    Attributes:
        instants: Probed tree changes in families that grew from mappings whose creation the capture saw.
        agreeing: Of these, how many leave the tree with exactly the intervals that the model gives it.
        trees: Those trees; ``agreeing_trees``: the ones where no instant differs.
        causes: Disagreeing instants by cause, a name of ``agreement_causes.CAUSES``.
        differences: One row a stretch of time in which an interval is on one of both only: ``tree``
            (number), ``anon_vma`` (probed), ``model`` (modelled anon_vma; null: there is none for this tree),
            ``vm_start``, ``vm_end``, ``first_pgoff``, ``surplus`` (probed less modelled), ``since``,
            ``until`` (places), ``cause``.
    """

    instants: int
    agreeing: int
    trees: int
    agreeing_trees: int
    causes: dict[str, int]
    differences: pl.DataFrame

    def table(self) -> pl.DataFrame:
        """Table ``agreement``; no rows: the probes saw no such change."""
        found: list[tuple[str | None, int, int | None, str | None]] = [
            (None, self.agreeing, self.agreeing_trees, None)
        ]
        found += [(cause, count, None, CAUSES[cause]) for cause, count in self.causes.items()]
        rows = [
            {
                "cause": cause,
                "instants": count,
                "share": count / self.instants,
                "trees": trees,
                "meaning": meaning,
            }
            for cause, count, trees, meaning in found
            if self.instants
        ]
        schema = {"cause": pl.String, "instants": pl.Int64, "share": pl.Float64, "trees": pl.Int64}
        return pl.DataFrame(rows, schema=schema | {"meaning": pl.String})

    @property
    def share(self) -> float | None:
        """Agreeing instants among all; None: there are none."""
        return self.agreeing / self.instants if self.instants else None


def boundaries(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The events that begin or end an operation of a task: ``pid``, ``seq``, ``boundary``. Sorted by seq."""
    calls = events["ev_syscall"].select(
        "pid", "seq", boundary=pl.when("is_exit").then(pl.lit("leave")).otherwise(pl.lit("enter"))
    )
    # "free" is about another task, long dead.
    tasks = events["ev_task"].filter(pl.col("kind") != "free").select("pid", "seq", boundary="kind")
    faults = own_faults(events).select("pid", "seq", boundary=pl.lit("fault"))
    return pl.concat([calls, tasks, faults]).sort("seq")


def operation_end(changes: pl.DataFrame, bounds: pl.DataFrame) -> pl.DataFrame:
    """``changes`` (``pid``, ``seq``, ...) with ``place``: where the operation that each belongs to is over.

    ``after`` and ``until`` are the boundaries around it. Inside of a call its place is the return (or the
    birth of the child); after a fault, the fault itself: the model knows at once what a fault does.
    """
    before = bounds.rename({"seq": "previous", "boundary": "after"}).sort("previous")
    behind = bounds.rename({"seq": "next", "boundary": "until"}).sort("next")
    return (
        changes.sort("seq")
        .join_asof(before, left_on="seq", right_on="previous", by="pid", check_sortedness=False)
        .join_asof(
            behind, left_on="seq", right_on="next", by="pid", strategy="forward", check_sortedness=False
        )
        .with_columns(
            place=pl.when(pl.col("after").is_in(IN_CALL) | (pl.col("until") == "exit"))
            .then(pl.coalesce("next", "seq"))
            .otherwise(pl.coalesce("previous", "seq"))
        )
        .drop("previous", "next")
    )


def probed_changes(ev_avc: pl.DataFrame, bounds: pl.DataFrame) -> pl.DataFrame:
    """``operation_end`` with the ``tree`` that each change is of, in order of anon_vma and ``seq``.

    An anon_vma is used again once its tree is empty: each use is a tree of its own.
    """
    linked = pl.when("is_insert").then(1).otherwise(-1).cum_sum()
    linked = linked - linked.cum_min().clip(upper_bound=0)
    # An operation may empty a tree for a moment; an anon_vma that is free meanwhile comes back in another mm.
    elsewhere = (pl.col("mm") != pl.col("mm").shift(1)) | (pl.col("place") > pl.col("place").shift(1))
    return (
        operation_end(ev_avc, bounds)
        .sort("anon_vma", "seq")
        .with_columns(
            empty=(linked.shift(1, fill_value=0) == 0).over("anon_vma"), elsewhere=elsewhere.over("anon_vma")
        )
        .with_columns(
            tree=(pl.col("is_insert") & pl.col("empty") & pl.col("elsewhere").fill_null(True)).cum_sum()
        )
        .with_columns(pl.col("tree").cast(pl.Int64).rank("dense").over("anon_vma").alias("use"))
        .with_columns(tree=pl.struct("anon_vma", "use").rank("dense").cast(pl.Int64))
        .drop("use", "empty", "elsewhere")
    )


def probed_lives(changes: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals by the probes, from operation to operation.

    Args:
        changes: ``probed_changes``.

    Returns:
        ``tree``, ``anon_vma``, ``vm_start``, ``vm_end``, ``first_pgoff``, ``pid``, ``seq`` (of the first
        insertion), ``born``, ``died``; a life inside of one operation is left out.
    """
    never = pl.lit(NEVER, pl.Int64)
    lives = (
        changes.sort("avc", "seq")
        .with_columns(
            died=pl.col("place").shift(-1).over("avc").fill_null(never),
            first_pgoff=pl.coalesce("anon_pgoff", "vm_pgoff"),
        )
        .filter("is_insert")
        .rename({"place": "born"})
        .sort("anon_vma", "born", "seq")
    )
    return lives.filter(pl.col("born") < pl.col("died")).select(
        "tree", "anon_vma", *_INTERVAL, "pid", "seq", "born", "died"
    )


def _matched(probed: pl.DataFrame, modelled: pl.DataFrame) -> pl.DataFrame:
    """For each probed tree the modelled one that shares most lives with it: ``tree``, ``model``."""
    shared = (
        probed.join(modelled, on=[*_INTERVAL, "born"], suffix="_model")
        .group_by("tree", "model")
        .agg(
            both=pl.len(),
            ends=(pl.col("died") == pl.col("died_model")).sum(),
            first=pl.col("born").min(),
        )
        .sort("both", "ends", "first", "tree", "model", descending=[True, True, False, False, False])
    )
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for tree, model in shared.select("tree", "model").iter_rows():
        if tree not in pairs and model not in taken:
            pairs[tree] = model
            taken.add(model)
    return pl.DataFrame(
        {"tree": list(pairs), "model": list(pairs.values())}, schema={"tree": pl.Int64, "model": pl.UInt64}
    )


def _seen(lives: pl.DataFrame, events: Mapping[str, pl.DataFrame], rules: KernelRules) -> pl.DataFrame:
    """``tree`` of the trees whose first interval belongs to a mapping whose creation the capture saw."""
    first = lives.sort("born", "seq").unique("tree", keep="first", maintain_order=True)
    pages = ((pl.col(name) // PAGE).cast(pl.Int64) for name in ("vm_start", "vm_end"))
    questions = first.select("pid", place="born", **dict(zip(("start", "end"), pages, strict=True)))
    table, _ = operations(events, RULES[rules])
    return first.filter(seen_births(table, questions)).select("tree")


def agreement(
    events: Mapping[str, pl.DataFrame], lives: pl.DataFrame, rules: KernelRules, *, events_lost: bool
) -> Agreement:
    """Compare modelled lives with the probes.

    Args:
        events: The ``ev_*`` tables; ``ev_avc`` has the columns of the VMA's range and mm.
        lives: ``model.Modelled.lives``.
        rules: Rules of the kernel.
        events_lost: The capture lost events: then no disagreement can be laid on the model.
    """
    changes = probed_changes(events["ev_avc"], boundaries(events))
    probed = probed_lives(changes)
    probed = probed.join(_seen(probed, events, rules), on="tree", how="semi")
    modelled = lives.select(*_INTERVAL, "born", "died", model="anon_vma")
    pairs = _matched(probed, modelled)
    theirs = modelled.join(pairs, on="model").select("tree", *_INTERVAL, "born", "died")
    steps = pl.concat(
        lives_.select("tree", *_INTERVAL, place=end, step=pl.lit(sign * way, pl.Int64))
        for lives_, sign in ((probed, 1), (theirs, -1))
        for end, way in (("born", 1), ("died", -1))
    )
    key = ["tree", *_INTERVAL]
    off = (
        steps.group_by(*key, "place")
        .agg(pl.col("step").sum())
        .filter(pl.col("step") != 0)
        .sort(*key, "place")
        .with_columns(
            surplus=pl.col("step").cum_sum().over(key),
            until=pl.col("place").shift(-1).over(key),
        )
        .filter(pl.col("surplus") != 0)
        .rename({"place": "since"})
    )
    whole = probed.select("tree", "anon_vma").unique()
    instants = changes.select("tree", "place").join(whole, on="tree", how="semi").sort("tree", "place")
    off = explained(
        off.join(whole.select("tree", "anon_vma"), on="tree", how="left"),
        unseen(changes, events),
        events,
        events_lost=events_lost,
    )
    wrong = (
        instants.with_row_index("instant")
        .join(off, on="tree", how="semi")
        .join_where(
            off.select("since", "until", "cause", other="tree"),
            pl.col("tree") == pl.col("other"),
            pl.col("place") >= pl.col("since"),
            pl.col("place") < pl.col("until"),
        )
        .sort("instant", "since")
        .unique("instant", keep="first", maintain_order=True)
    )
    trees, missing = whole.height, wrong.height
    return Agreement(
        instants=instants.height,
        agreeing=instants.height - missing,
        trees=trees,
        agreeing_trees=trees - wrong["tree"].n_unique(),
        causes=dict(wrong["cause"].value_counts(sort=True).iter_rows()),
        differences=off.join(pairs, on="tree", how="left")
        .select("tree", "anon_vma", "model", *_INTERVAL, "surplus", "since", "until", "cause")
        .sort("since", "tree", "vm_start"),
    )
