"""Which VMAs side by side did not merge, and why: neighbours on the largest trees, and what calls tried.

The reasons are those of ``merge_rules``: of neighbours asked here, once for each distinct pair of states; of
merges that calls tried asked by the model, as it goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.call_sites import SITE, sites
from replay.state.lifetimes import of_versions
from replay.state.merge_rules import REASONS, refused_anon_vma, refused_pgoff, refused_vma
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.findings.splits import Audit

APART: Final = "apart"
"""Instead of a reason: the two VMAs do not touch."""

_STATE: Final = ("vm_start", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags", "own")
_PAGE: Final = 4096


def neighbours(audit: Audit, vma: pl.DataFrame, ev_avc: pl.DataFrame) -> pl.DataFrame:
    """Table ``refusal`` of the neighbours on each audited tree.

    mprotect() and madvise() split before they change vm_flags, so what the probes tell at an insertion is
    older than the call. The flags of the removal count, where the capture has it.

    Args:
        audit: The trees at their peaks, and their changes.
        vma: Table ``vma``.
        ev_avc: The table of this name; empty: flags are known from ``vma``.

    Returns:
        Rows of kind ``neighbours``. The VMAs of an address space on a tree are taken in order of address, so
        over the rows of a tree ``merges`` is its peak less its address spaces.
    """
    at_peak = audit.at_peak.drop_nulls(["mm", "vm_start"])
    state = of_versions(vma, at_peak["vma_id"], "vm_pgoff", "anon_pgoff", "vm_flags", "anon_vma")
    left = ev_avc.select("is_insert", died_seq="seq", flags="vm_flags").filter(
        ~pl.col("is_insert"), pl.col("died_seq").is_in(at_peak["died_seq"].implode())
    )
    flags = pl.when(pl.col("evidence") == "exact").then("flags").otherwise("vm_flags")
    made = (
        audit.changes.filter(pl.col("added") > 0)
        .select("tree_id", *SITE, "ts_ns", born="seq")
        .unique(["tree_id", "born"])
    )
    placed = (
        at_peak.select("tree_id", "mm", "vma_id", "vm_start", "vm_end", "born", "died_seq", "evidence")
        .hstack(state.rename({"anon_vma": "own"}))
        .join(left.drop("is_insert"), on="died_seq", how="left")
        # Which of its anon_vmas is its own is only sure of a VMA that was seen when it came.
        .with_columns(vm_flags=flags, own=pl.when(pl.col("born") >= 0).then("own"))
        .drop("flags")
        .sort("tree_id", "mm", "vm_start")
    )
    before = placed.select(pl.col(*_STATE, "born").shift(1).name.prefix("left_"))
    same = placed.select((pl.col("tree_id", "mm") == pl.col("tree_id", "mm").shift(1)).name.keep())
    pairs = (
        pl.concat([placed, before], how="horizontal")
        .filter((same["tree_id"] & same["mm"]).fill_null(False))
        .with_columns(born=pl.max_horizontal("born", "left_born"))
        .join(made, on=["tree_id", "born"], how="left")
    )
    pages = (pl.col("left_vm_end") - pl.col("left_vm_start")) // _PAGE
    known = pairs.select(
        touches=pl.col("left_vm_end") == pl.col("vm_start"),
        flags=pl.col("vm_flags") ^ pl.col("left_vm_flags"),
        same_anon_vma=pl.col("own") == pl.col("left_own"),
        follows=pl.col("vm_pgoff") == pl.col("left_vm_pgoff") + pages,
        anon_follows=pl.col("anon_pgoff") == pl.col("left_anon_pgoff") + pages,
    )
    asked = known.unique()
    answers = [_answer(*row) for row in asked.iter_rows()]
    told = asked.with_columns(
        pl.DataFrame(
            answers, schema={"reasons": pl.String, "by_6_12": pl.Boolean, "by_7_3": pl.Boolean}, orient="row"
        )
    )
    reasoned = known.join(told, on=known.columns, how="left", maintain_order="left", nulls_equal=True)
    pairs = pl.concat([pairs, reasoned.select("flags", "reasons", "by_6_12", "by_7_3")], how="horizontal")
    return by_site(pairs.with_columns(kind=pl.lit("neighbours"), vm_flags="flags"))


def tried(
    refusals: pl.DataFrame,
    tree: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    comms: Mapping[int, str],
) -> pl.DataFrame:
    """Table ``refusal`` of the merges that calls tried.

    Args:
        refusals: ``model.Modelled.refusals``.
        tree: Table ``tree``; its modelled rows tell the tree.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.

    Returns:
        Rows of kind ``merge``.
    """
    numbers = tree.filter(pl.col("evidence") == "modelled").select("anon_vma", "tree_id")
    distinct = refusals.select("older", "newer").unique()
    both = distinct.select((pl.col("older") | pl.col("newer")).alias("both"))["both"]
    spoken = distinct.with_columns(reasons=pl.Series([words(bits) for bits in both], dtype=pl.String))
    attempts = (
        sites(refusals, events, comms)
        .join(numbers, on="anon_vma", how="left")
        .join(spoken, on=["older", "newer"], how="left")
        .with_columns(
            kind=pl.lit("merge"),
            by_6_12=pl.col("older") != 0,
            by_7_3=pl.col("newer") != 0,
            evidence=pl.lit("modelled"),
        )
    )
    return by_site(attempts)


def by_site(pairs: pl.DataFrame) -> pl.DataFrame:
    """Table ``refusal``: pairs of one kind, call site and reasons together."""
    keys = ["kind", "tree_id", *SITE, "reasons", "by_6_12", "by_7_3", "evidence"]
    return (
        pairs.group_by(keys)
        .agg(
            pl.col("vm_flags").bitwise_or(),
            merges=pl.len().cast(pl.Int64),
            first_ts_ns=pl.col("ts_ns").min(),
            last_ts_ns=pl.col("ts_ns").max(),
        )
        .sort(
            ["kind", "tree_id", "merges", "first_ts_ns", *SITE, "reasons"],
            descending=[True, False, True, *[False] * 7],
        )
        .select(TABLES["refusal"].arrow.names)
    )


def _answer(
    touches: bool,
    flags: int | None,
    same_anon_vma: bool | None,
    follows: bool | None,
    anon_follows: bool | None,
) -> tuple[str, bool | None, bool | None]:
    """Reasons in words; whether the rules of 6.12, and those of 7.3, refuse (None: not known)."""
    if not touches:
        return APART, True, True
    older, newer = (_bits(newer, flags, same_anon_vma, follows, anon_follows) for newer in (False, True))
    return words(older | newer), bool(older) or None, bool(newer) or None


def _bits(
    newer: bool,
    flags: int | None,
    same_anon_vma: bool | None,
    follows: bool | None,
    anon_follows: bool | None,
) -> int:
    """Both VMAs are on the tree, so both have an anon_vma. Policy and file are not in the probes.

    What is null is not known, and no reason.
    """
    other = 0 if same_anon_vma in (True, None) else 1
    reasons = refused_vma(flags or 0, 0, True, True) | refused_anon_vma(newer, 0, other, False, False, True)
    if follows is not None:
        reasons |= refused_pgoff(newer, anon_follows is not None, int(follows), 1, int(anon_follows or 0), 1)
    return reasons


def words(reasons: int) -> str:
    """Bits of ``merge_rules`` as words."""
    return ", ".join(word for bit, word in REASONS.items() if reasons & bit)
