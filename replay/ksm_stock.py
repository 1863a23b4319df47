"""KSM from stock events alone: stable nodes, their rmap_items, and the migrations' walks over them.

What the events say: ``ksm_merge_with_ksm_page`` gives the rmap_item, its mm and the page frame that it was
merged into, but no address; ``set_migration_pte`` and ``remove_migration_pte`` give the addresses and the
frame of each entry that a migration's two walks changed, but neither rmap_item nor mm.

1. *Nodes.* A merge into no KSM page makes a node of that frame, together with the merge that follows, whose
   rmap_item is listed first. A migration that restores on another frame moves the node there;
   ``ksm_remove_ksm_page`` ends it. So every merge and every migration belongs to the node that has its frame.
2. *Addresses.* A walk changes entries only at addresses of listed rmap_items. If one address space has all
   rmap_items that were merged into the node and not elsewhere since, and there are as many of them as
   addresses hit, then all are listed, and those are their addresses. If no relative of a fork can map the
   pages, each hit is of the first pass, and hits come in the order of the hlist, newest first: so each
   rmap_item has its address. Otherwise nothing is determined, and the walk is not replayed.
3. *Address spaces.* ``ksm_enter`` comes inside the task's own madvise() or prctl(), inside its execve(), or
   inside the fork that makes the child whose mm it is. Else ``exit_mmap`` tells, where its task ends or
   executes another program: only then is the mm its own.

Where the folio was moved, nothing mapped it any more, so the first walk ended at its last hit. A walk that
changed no entry, that failed to move its folio, of reclaim, of aging or of DAMON is not in such a capture,
or is not determined. Swap entries are read as x86 lays them out (arch/x86/include/asm/pgtable_64.h).

Kernel: mm/ksm.c cmp_and_merge_page(), try_to_merge_two_pages(); mm/migrate.c migrate_folio_move().
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.exact import Exact, replay_state
from replay.ksm_bounds import bounded
from replay.ksm_modelled import modelled_spaces, tree_events, trees_at
from replay.ksm_nodes import migrations, nodes
from replay.ksm_windows import Doubt, in_windows, windows
from replay.lifetimes import AFTER, STABLE_FLAG
from replay.spaces import mm_lives, mm_of, parents
from replay.steps import RESTORES, SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.model import Modelled

APART: Final = 4
"""Distance of the places of events: what is made up from them has its place between."""

_FORKS: Final = ("clone", "clone3", "fork", "vfork")
_EXECS: Final = ("execve", "execveat")
_OWN: Final = ("madvise", "prctl")


@dataclass(frozen=True)
class Stock:
    """What stock events tell of KSM.

    Attributes:
        ev_avc: The modelled intervals, as ``ev_avc``.
        state: State and the walks that are determined.
        whole: ``state.items`` of the nodes of which every rmap_item is determined.
        merged: rmap_items merged.
        determined: Of these, how many have their address.
        migrations: Migrations of KSM folios that changed an entry.
        replayed: Of these, how many are replayed.
    """

    ev_avc: pl.DataFrame
    state: Exact
    whole: pl.DataFrame
    merged: int
    determined: int
    migrations: int
    replayed: int


def replay_stock(events: Mapping[str, pl.DataFrame], model: Modelled, strategies: Sequence[str]) -> Stock:
    """Replay the walks of a capture without probes, as far as it determines them.

    Args:
        events: The ``ev_*`` tables, none of whose events was lost; what probes tell is not there. Places are
            ``APART``.
        model: State rebuilt from them.
        strategies: Names of the strategies.
    """
    lives = _before_the_event(in_windows(model.lives, windows(events)))
    ev_avc = tree_events(lives, model.versions)
    spaces = modelled_spaces(events, ev_avc, lives)
    moves = migrations(events["ev_migration_pte"])
    items, moves = nodes(events, moves)
    items = items.with_columns(number=address_spaces(items, events, spaces))
    known, walked = determined(items, moves, events["ev_migration_pte"], parents(mm_lives(lives), spaces))
    found = trees_at(known.select(mm="number", address="address", at="born"), lives, model.versions)
    anon_vma = known.select("item").with_row_index("row").join(found, on="row", how="left")["anon_vma"]
    own = (
        dict(events) | _as_probed(known.with_columns(anon_vma=anon_vma), walked, events) | {"ev_avc": ev_avc}
    )
    state = replay_state(own, lives, model.versions, strategies)
    trees = lives.join(
        known.select(anon_vma=anon_vma).unique(), on="anon_vma", how="semi", maintain_order="left"
    )
    untimed = pl.lit(None, pl.Int64)
    state = bounded(state, Doubt(trees))
    state = replace(
        state,
        walks=state.walks.with_columns(end_ns=untimed),
        walk=state.walk.with_columns(end_ns=untimed, observed_ns=untimed, folio=pl.lit(None, pl.UInt64)),
        items=state.items.with_columns(evidence=pl.lit("modelled")),
        rmap_item=state.rmap_item.with_columns(evidence=pl.lit("modelled")),
        avc=model.lives.select(state.avc.columns),
    )
    partly = items.join(known, on="item", how="anti").select(stable_node=_node()).unique()
    whole = state.items.join(partly, on="stable_node", how="anti", maintain_order="left")
    return Stock(ev_avc, state, whole, len(items), len(known), moves["node"].count(), len(walked))


def _before_the_event(lives: pl.DataFrame) -> pl.DataFrame:
    """An operation is over right before the event that tells so: inside of its call, after its fault."""
    return lives.with_columns(
        pl.when(pl.col(name) < AFTER - 1).then(pl.col(name) - 1).otherwise(name).alias(name)
        for name in ("born", "born_seq", "died", "died_seq")
    )


def address_spaces(
    items: pl.DataFrame, events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame
) -> pl.Series:
    """The modelled address space of each rmap_item; null: no event that carries its mm tells whose it is.

    Args:
        items: ``nodes``.
        events: The ``ev_*`` tables.
        spaces: ``modelled_spaces``.
    """
    calls = (
        events["ev_syscall"].select("pid", "seq", call=pl.when(~pl.col("is_exit")).then("name")).sort("seq")
    )
    tasks = events["ev_task"].sort("seq")
    born = tasks.filter(pl.col("kind").is_in(("newtask", "fork"))).select("pid", "child_pid", born="seq")
    execs = tasks.filter(pl.col("kind") == "exec").select("pid", exec="seq")
    enters = (
        events["ev_ksm_enter"]
        .select("mm", "pid", "seq")
        .sort("seq")
        .join_asof(calls, on="seq", by="pid", check_sortedness=False)
        .join_asof(born, left_on="seq", right_on="born", by="pid", strategy="forward", check_sortedness=False)
        .join_asof(
            execs, left_on="seq", right_on="exec", by="pid", strategy="forward", check_sortedness=False
        )
        .with_columns(
            task=pl.when(pl.col("call").is_in(_FORKS))
            .then("child_pid")
            .when(pl.col("call").is_in((*_OWN, *_EXECS)))
            .then("pid"),
            at=pl.when(pl.col("call").is_in(_FORKS))
            .then("born")
            .when(pl.col("call").is_in(_EXECS))
            .then("exec")
            .otherwise("seq"),
        )
        .select("mm", "task", "at", entered="seq")
    )
    rows = (
        items.select("mm", "born")
        .with_row_index("row")
        .sort("born")
        .join_asof(enters, left_on="born", right_on="entered", by="mm", check_sortedness=False)
    )
    rows = rows.join_asof(
        _ends(events, calls),
        left_on="born",
        right_on="ended",
        by="mm",
        strategy="forward",
        check_sortedness=False,
    )
    entered = pl.col("task").is_not_null()
    told = rows.select(
        "row",
        pid=pl.coalesce("task", "last_task"),
        seq=pl.when(entered).then(pl.max_horizontal("born", "at")).otherwise("ended"),
    )
    return mm_of(told, spaces).sort("row")["mm"]


def _ends(events: Mapping[str, pl.DataFrame], calls: pl.DataFrame) -> pl.DataFrame:
    """Address spaces that end with a task of their own: ``mm``, ``last_task``, ``ended``."""
    exits = events["ev_task"].filter(pl.col("kind") == "exit").select("pid", exit="seq").sort("exit")
    entries = calls.drop_nulls("call").select("pid", entry="seq").sort("entry")
    return (
        events["ev_exit_mmap"]
        .select("mm", "pid", "seq")
        .sort("seq")
        .join_asof(calls, on="seq", by="pid", check_sortedness=False)
        .join_asof(
            exits, left_on="seq", right_on="exit", by="pid", strategy="forward", check_sortedness=False
        )
        .join_asof(
            entries, left_on="seq", right_on="entry", by="pid", strategy="forward", check_sortedness=False
        )
        .filter(
            pl.col("call").is_in(_EXECS)
            | (
                pl.col("exit").is_not_null()
                & (pl.col("entry").is_null() | (pl.col("entry") > pl.col("exit")))
            )
        )
        .select("mm", last_task="pid", ended="seq")
    )


def determined(
    items: pl.DataFrame, moves: pl.DataFrame, ev_migration_pte: pl.DataFrame, forks: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rmap_items whose address follows from a walk, and the migrations whose walks are known whole.

    Args:
        items: ``nodes``, and ``number``, their modelled address space.
        moves: ``migrations`` with the node.
        ev_migration_pte: Table ``ev_migration_pte``.
        forks: ``spaces.parents``.

    Returns:
        Rows of ``items`` with ``address``, and rows of ``moves``.
    """
    family = pl.concat([forks.select(number="mm"), forks.select(number="parent")]).unique()
    listed = (
        moves.filter("complete", pl.col("node").is_not_null(), pl.col("restored") != pl.col("pfn"))
        .join(items, on="node")
        .filter((pl.col("born") < pl.col("first")) & (pl.col("died") > pl.col("last")))
    )
    whole = (
        listed.group_by("move")
        .agg(
            pl.col("hits", "addresses", "type").first(),
            listed=pl.len(),
            spaces=pl.col("mm").n_unique(),
            numbers=pl.col("number").n_unique(),
            number=pl.col("number").first(),
        )
        .filter(
            (pl.col("listed") == pl.col("addresses"))
            & (pl.col("hits") == pl.col("addresses"))
            & (pl.col("spaces") == 1)
            & (pl.col("numbers") == 1)
            & pl.col("number").is_not_null()
        )
        .join(family, on="number", how="anti")
    )
    # A folio at several addresses of one process is a KSM page; entries of others are marked otherwise.
    kinds = whole.filter(pl.col("listed") > 1)["type"].unique()
    whole = whole.filter(pl.col("type").is_in(kinds.implode()) & pl.lit(len(kinds) == 1))
    order = (
        listed.join(whole.select("move"), on="move", how="semi")
        .sort("move", "born", descending=[False, True])
        .with_columns(place=pl.int_range(pl.len()).over("move"))
    )
    hits = (
        moves.select("move", "pid", "first", "last")
        .join(whole.select("move"), on="move", how="semi")
        .sort("first")
    )
    hits = (
        ev_migration_pte.filter("is_set", pl.col("pte").is_not_null())
        .select("pid", "seq", "address")
        .sort("seq")
        .join_asof(hits, left_on="seq", right_on="first", by="pid", check_sortedness=False)
        .filter(pl.col("seq") <= pl.col("last"))
        .with_columns(place=pl.int_range(pl.len()).over("move"))
        .select("move", "place", "address")
    )
    told = order.join(hits, on=["move", "place"]).select("move", "item", "address")
    agreed = told.with_columns(other=pl.col("address").n_unique().over("item"))
    contradicted = agreed.filter(pl.col("other") > 1).select("move").unique()
    told = told.join(contradicted, on="move", how="anti")
    address = told.select("item", "address").unique("item", keep="first")
    known = items.join(address, on="item").sort("born")
    return known, moves.join(told.select("move").unique(), on="move", how="semi").sort("first")


def _node() -> pl.Expr:
    """What stands for the pointer of the stable node."""
    return (pl.col("node") + 1).cast(pl.UInt64)


def _as_probed(
    known: pl.DataFrame, walked: pl.DataFrame, events: Mapping[str, pl.DataFrame]
) -> dict[str, pl.DataFrame]:
    """What probes would have told of these rmap_items and walks."""
    none = pl.lit(None, pl.UInt64)
    node = _node()
    appends = known.select(
        "rmap_item",
        "kpfn",
        "anon_vma",
        "address",
        seq="born",
        ts_ns="ts_ns",
        cpu=pl.lit(0, pl.Int32),
        pid="pid",
        stable_node=node,
        mm="number",
        linear_page_index=none,
    )
    removals = known.filter(pl.col("died") < (1 << 62)).select(
        "rmap_item",
        "anon_vma",
        pl.col("address") | STABLE_FLAG,
        seq=pl.col("died") - 1,
        ts_ns="died_ts_ns",
        cpu=pl.lit(0, pl.Int32),
        pid="pid",
        is_return=pl.lit(False),
        mm="number",
        head=node,
    )
    walks = []
    for caller, first, last, pfn in ((SETS, "first", "last", "pfn"), (RESTORES, "begin", "end", "restored")):
        for is_return, place, time in (
            (False, pl.col(first) - 1, f"{first}_ts"),
            (True, pl.col(last) + 1, f"{last}_ts"),
        ):
            walks.append(
                walked.select(
                    "pid",
                    seq=place,
                    ts_ns=time,
                    cpu=pl.lit(0, pl.Int32),
                    is_return=pl.lit(is_return),
                    folio=pfn,
                    stable_node=node,
                    rmap_one=pl.lit(caller),
                )
            )
    made = {
        "ev_append": appends,
        "ev_item_remove": removals,
        "ev_node_remove": events["ev_node_remove"].clear(),
        "ev_walk": pl.concat(walks),
    }
    return {
        name: pl.concat([events[name].clear(), rows], how="diagonal_relaxed").sort("seq")
        for name, rows in made.items()
    }
