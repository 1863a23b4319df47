"""KSM from stock events alone: stable nodes, their rmap_items, and the migrations' walks over them.

What the events say: ``ksm_merge_with_ksm_page`` gives the rmap_item, its mm and the page frame that it was
merged into, but no address; ``set_migration_pte`` and ``remove_migration_pte`` give the addresses and the
frame of each entry that a migration's two walks changed, but neither rmap_item nor mm.

1. *Nodes.* A merge into no KSM page makes a node of that frame, together with the merge that follows, whose
   rmap_item is listed first. A migration that restores on another frame moves the node there;
   ``ksm_remove_ksm_page`` ends it. So every merge and every migration belongs to the node that has its frame.
2. *Addresses.* A walk changes entries only at addresses of listed rmap_items. If all that was merged into the
   node is of one address space that was not forked since, and as many rmap_items as addresses hit were not
   merged elsewhere, then all these are listed, and those are their addresses. Each hit is of the first
   pass, and hits come in the order of the hlist, newest first: so each rmap_item has its address. If it was
   forked, hits show where the second pass began (``ksm.hits.second_passes``). Otherwise the walk is not
   replayed; for what can be said of it see ``ksm.undetermined``.
3. *Address spaces.* ``ksm_enter`` comes inside the task's own madvise() or prctl(), inside its execve(), or
   inside the fork that makes the child whose mm it is. Else ``exit_mmap`` tells, where its task ends or
   executes another program: only then is the mm its own. Else, where a capture has them, ``mmap_lock`` events
   of a task that changes its own address space.

Where the folio was moved, nothing mapped it any more, so the first walk ended at its last hit; else the walk
has bounds. A walk that changed no entry, of reclaim, of aging or of DAMON is not in such a capture. Swap
entries are read as x86 lays them out (arch/x86/include/asm/pgtable_64.h).

Kernel: mm/ksm.c cmp_and_merge_page(), try_to_merge_two_pages(); mm/migrate.c migrate_folio_move().
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.ksm.bounds import bounded
from replay.ksm.candidates import vmas_at
from replay.ksm.hits import second_passes, still_nodes
from replay.ksm.modelled import modelled_spaces, tree_events
from replay.ksm.nodes import hits_of, listed_in, migration_entries, migrations, nodes, of_one, stable_node
from replay.ksm.spaces import address_spaces, followed
from replay.ksm.undetermined import Rebuilt, Undetermined, undetermined
from replay.ksm.windows import Doubt, in_windows, windows
from replay.state.lifetimes import AFTER, BEFORE, STABLE_FLAG
from replay.state.spaces import mm_lives, parents
from replay.walks.chosen import chosen
from replay.walks.counting import Replayed
from replay.walks.exact import Exact, replay_state
from replay.walks.steps import RESTORES, SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.model.rebuild import Modelled

APART: Final = 4
"""Distance of the places of events: what is made up from them has its place between."""


@dataclass(frozen=True)
class Stock:
    """What stock events tell of KSM.

    Attributes:
        ev_avc: The modelled intervals, as ``ev_avc``.
        state: State and the walks that are determined.
        whole: ``state.items`` of the nodes of which every rmap_item is determined.
        merged: rmap_items merged.
        determined: Of these, how many have their address.
        bounded_items: Of the others, how many have a range of addresses.
        migrations: Migrations of KSM folios that changed an entry.
        replayed: Of these, how many are replayed.
        bounded: Of the others, how many have bounds.
    """

    ev_avc: pl.DataFrame
    state: Exact
    whole: pl.DataFrame
    merged: int
    determined: int
    bounded_items: int
    migrations: int
    replayed: int
    bounded: int


def replay_stock(events: Mapping[str, pl.DataFrame], model: Modelled, strategies: Sequence[str]) -> Stock:
    """Replay the walks of a capture without probes, as far as it determines them.

    Args:
        events: The ``ev_*`` tables, none of whose events was lost; what probes tell is not there. Places are
            ``APART``.
        model: State rebuilt from them.
        strategies: Names of the strategies.
    """
    told = windows(events)
    lives = _before_the_event(in_windows(model.lives, told))
    ev_avc = tree_events(lives, model.versions)
    spaces = modelled_spaces(events, ev_avc, lives)
    forks = parents(mm_lives(lives), spaces)
    entries = migration_entries(events["ev_migration_pte"])
    items, moves = nodes(events, entries, migrations(entries))
    items = items.with_columns(number=address_spaces(items, events, spaces, lives))
    known, walked = determined(items, moves, events["ev_migration_pte"], forks)
    versions = model.versions.with_columns(
        born=pl.col("born_seq").fill_null(BEFORE), died=pl.col("died_seq").fill_null(AFTER)
    )
    versions = _before_the_event(in_windows(versions, told))
    held = vmas_at(known, versions)
    sure = known.join(
        held.filter(pl.len().over("item") == 1).select("item", "anon_vma"), on="item", maintain_order="left"
    )
    unsure = listed_in(walked, items).join(sure, on="item", how="anti")
    walked = walked.join(unsure, on="move", how="anti", maintain_order="left")
    own = dict(events) | _as_probed(sure, walked, events) | {"ev_avc": ev_avc}
    state = replay_state(own, lives, model.versions, strategies)
    trees = lives.join(sure, on="anon_vma", how="semi", maintain_order="left")
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
    bounds = undetermined(
        events,
        items.join(known.select("item", "address"), on="item", how="left", maintain_order="left"),
        moves,
        walked,
        state.items.drop("item").join(sure.select("item", "rmap_item", "born"), on=["rmap_item", "born"]),
        Rebuilt(lives, versions, held, followed(events, spaces, forks, versions), forks),
        chosen(strategies),
    )
    partly = items.join(sure, on="item", how="anti").select(stable_node=stable_node()).unique()
    whole = state.items.join(partly, on="stable_node", how="anti", maintain_order="left")
    return Stock(
        ev_avc,
        _with_bounds(state, bounds),
        whole,
        merged=len(items),
        determined=len(known),
        bounded_items=bounds.rmap_item["address_least"].count(),
        migrations=moves["node"].count(),
        replayed=len(walked),
        bounded=bounds.migrations,
    )


def _with_bounds(state: Exact, bounds: Undetermined) -> Exact:
    """``state`` with rows for what has bounds, or nothing, in its place among the walks."""
    enters = pl.concat([state.walks.select("enter"), bounds.walk.select("enter").unique()]).sort("enter")
    enters = enters.with_row_index("number").with_columns(pl.col("number").cast(pl.Int64))
    number = state.walks.select("enter").join(enters, on="enter", how="left", maintain_order="left")["number"]

    def renumbered(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(number.gather(frame["walk_id"]).alias("walk_id"))

    def beside(name: str) -> pl.DataFrame:
        own: pl.DataFrame = getattr(state, name)
        more: pl.DataFrame = getattr(bounds, name)
        more = more.join(enters.rename({"number": "walk_id"}), on="enter", how="left", maintain_order="left")
        columns = [column for column in own.columns if column in more.columns]
        return pl.concat([renumbered(own), more.select(columns)], how="diagonal_relaxed").sort(
            "walk_id", maintain_order=True
        )

    replayed = {
        name: renumbered(getattr(state.replayed, name))
        for name in ("loop", "walk", "miss", "pages", "strays")
    }
    return replace(
        state,
        walks=renumbered(state.walks),
        walk=beside("walk"),
        loop=beside("loop"),
        miss=renumbered(state.miss),
        replayed=Replayed(**replayed),
        rmap_item=pl.concat([state.rmap_item, bounds.rmap_item], how="diagonal_relaxed").sort(
            "born_ts_ns", maintain_order=True
        ),
    )


def _before_the_event(lives: pl.DataFrame) -> pl.DataFrame:
    """An operation is over right before the event that tells so: inside of its call, after its fault."""
    return lives.with_columns(
        pl.when(pl.col(name) < AFTER - 1).then(pl.col(name) - 1).otherwise(name).alias(name)
        for name in ("born", "born_seq", "died", "died_seq")
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
    complete = still_nodes(moves, items, forks).filter("complete")
    listed = listed_in(complete, items)
    hits = hits_of(complete, ev_migration_pte)
    whole = (
        listed.group_by("move")
        .agg(listed=pl.len())
        .join(complete.select("move", "hits", "addresses"), on="move")
        .filter(pl.col("listed") == pl.col("addresses"))
        .join(of_one(complete, items, forks), on="move")
        .join(second_passes(hits), on="move")
        .filter(pl.when("forked").then("told").otherwise(pl.col("hits") == pl.col("addresses")))
    )
    order = (
        listed.join(whole.select("move"), on="move", how="semi")
        .sort("move", "born", descending=[False, True])
        .with_columns(place=pl.int_range(pl.len()).over("move"))
    )
    told = order.join(hits, on=["move", "place"]).select("move", "item", "address")
    agreed = told.with_columns(other=pl.col("address").n_unique().over("item"))
    contradicted = agreed.filter(pl.col("other") > 1).select("move").unique()
    told = told.join(contradicted, on="move", how="anti")
    address = told.select("item", "address").unique("item", keep="first")
    known = items.join(address, on="item").sort("born")
    walked = moves.join(told.select("move").unique(), on="move", how="semi")
    return known, walked.filter(pl.col("restored") != pl.col("pfn")).sort("first")


def _as_probed(
    known: pl.DataFrame, walked: pl.DataFrame, events: Mapping[str, pl.DataFrame]
) -> dict[str, pl.DataFrame]:
    """What probes would have told of these rmap_items and walks."""
    none = pl.lit(None, pl.UInt64)
    node = stable_node()
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
