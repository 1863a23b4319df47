"""rmap_items on modelled trees: what the kernel's pointers of address spaces and trees are in the model.

A model numbers address spaces and anon_vmas; the tree probes and KSM's events tell pointers. Both sides know
which task ran where, and that joins them: an rmap_item is of the address space that its task was in, and its
anon_vma is that of the VMA which the model has at its address when the page was merged.

Kernel: mm/ksm.c try_to_merge_with_ksm_page(): rmap_item->anon_vma = vma->anon_vma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.lifetimes import PAGE_MASK, avc_lives, of_versions
from replay.state.spaces import mm_lives, mm_of, task_spaces
from replay.state.trees import Trees
from replay.walks.merge import merge_places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.model.rebuild import Modelled

_AVC: Final = ("avc", "anon_vma", "vma", "mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff")


def tree_events(lives: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """The insertions and removals of modelled intervals, with the columns of table ``ev_avc``.

    Args:
        lives: Lives of modelled intervals.
        versions: ``Modelled.versions``; tells the flags.

    Returns:
        In order of ``seq``, which is not unique: all that an operation does happens at its place.
    """
    lives = lives.hstack(of_versions(versions, lives["vma_id"], "vm_flags"))
    ends = (
        lives.filter(pl.col(f"{end}_seq").is_not_null()).select(
            pl.col(f"{end}_seq").alias("seq"),
            pl.col(f"{end}_ts_ns").alias("ts_ns"),
            "pid",
            *_AVC,
            "vm_flags",
            cpu=pl.lit(0, pl.Int32),
            is_insert=pl.lit(end == "born"),
        )
        for end in ("died", "born")
    )
    return pl.concat(ends).sort("seq", maintain_order=True)


def modelled_spaces(
    events: Mapping[str, pl.DataFrame], ev_avc: pl.DataFrame, lives: pl.DataFrame
) -> pl.DataFrame:
    """The modelled address space that each task runs in, from when on (``spaces.task_spaces``).

    Args:
        events: The ``ev_*`` tables.
        ev_avc: ``tree_events``.
        lives: Lives of modelled intervals.
    """
    return task_spaces(mm_lives(lives), ev_avc, events["ev_task"])


def numbers_of(asked: pl.DataFrame, probed: pl.DataFrame, modelled: pl.DataFrame) -> pl.Series:
    """The number of each address space in the model; null: no task of it is known, or the model has none.

    Args:
        asked: ``mm`` (the kernel's pointer), ``seq`` (when it was that address space).
        probed: ``spaces.task_spaces`` by the probes: pid, seq, mm.
        modelled: ``modelled_spaces``.
    """
    told = probed.drop_nulls("mm").select("mm", "pid", told="seq").sort("told")
    rows = (
        asked.select("mm", "seq")
        .with_row_index("row")
        .sort("seq")
        .join_asof(told, left_on="seq", right_on="told", by="mm", check_sortedness=False)
    )
    there = mm_of(rows.select("row", "seq", "pid"), modelled).rename({"mm": "number"})
    return rows.select("row").join(there, on="row", how="left").sort("row")["number"].rename("mm")


def trees_at(asked: pl.DataFrame, lives: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """The VMA that holds each page, and the anon_vma that is its own.

    Args:
        asked: ``mm`` (number), ``address`` (bytes), ``at`` (place).
        lives: Lives of modelled intervals.
        versions: ``Modelled.versions``.

    Returns:
        ``row`` (of ``asked``), ``anon_vma``; one row for each that has an answer: its VMA had an anon_vma.
    """
    owned = of_versions(versions, lives["vma_id"], "anon_vma")["anon_vma"]
    own = lives.with_columns(own=owned).filter(pl.col("anon_vma") == pl.col("own"))
    trees = Trees(own.with_columns(anon_vma=pl.lit(0, pl.UInt64)))
    spaces = trees.spaces.select("mm", "space")
    rows = (
        asked.with_row_index("row")
        .filter(pl.all_horizontal(pl.col("mm", "address", "at").is_not_null()))
        .join(spaces, on="mm", maintain_order="left")
    )
    question, life = trees.covering(
        rows["space"].to_numpy(), rows["at"].to_numpy(), rows["address"].to_numpy()
    )
    anon_vma = trees.lives[life].select("own", "born")
    return (
        pl.concat([rows[question].select("row"), anon_vma], how="horizontal")
        .sort("row", "born", maintain_order=True)
        .unique("row", keep="last", maintain_order=True)
        .select("row", anon_vma="own")
    )


def on_model(
    events: Mapping[str, pl.DataFrame], model: Modelled, lives: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """The events of a capture with probes as they would be if the model were the kernel.

    Args:
        events: The ``ev_*`` tables, with the tree probes and KSM's.
        model: The rebuilt state.
        lives: Its lives, as they are to be used (``ksm.windows.in_windows``).

    Returns:
        ``events``; in ``ev_avc`` the model's intervals, in ``ev_append`` and ``ev_item_remove`` its numbers
        for mm and anon_vma. Null: the model does not have the VMA. linear_page_index is null: it follows from
        the model. An rmap_item of which only the removal was seen has no anon_vma.
    """
    ev_avc = tree_events(lives, model.versions)
    heads = mm_lives(avc_lives(events["ev_avc"], events["ev_syscall"])[0])
    probed = task_spaces(heads, events["ev_avc"], events["ev_task"])
    modelled = modelled_spaces(events, ev_avc, lives)
    appends, removals = events["ev_append"], events["ev_item_remove"]
    asked = appends.select(
        pl.col("address") & PAGE_MASK,
        mm=numbers_of(appends, probed, modelled),
        at=merge_places(appends.select("rmap_item", born="seq"), events["ev_merge"]),
    )
    found = trees_at(asked, lives, model.versions)
    anon_vma = asked.with_row_index("row").join(found, on="row", how="left", maintain_order="left")[
        "anon_vma"
    ]
    return {
        **events,
        "ev_avc": ev_avc,
        "ev_append": appends.with_columns(
            mm=asked["mm"], anon_vma=anon_vma, linear_page_index=pl.lit(None, pl.UInt64)
        ),
        "ev_item_remove": removals.with_columns(
            mm=numbers_of(removals, probed, modelled), anon_vma=pl.lit(None, pl.UInt64)
        ),
    }
