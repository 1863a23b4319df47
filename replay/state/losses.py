"""What lost events leave open: lives whose begin or end was lost, and where the capture proves them to lie.

A VMA whose removal was lost stays on its tree for ever, unless something proves it gone. Something does:
VMAs of one address space do not overlap, so a later VMA in its place, or the end of the address space, says
that it went before; and it went unseen, so in a loss. Likewise for a VMA whose insertion was lost, and for
rmap_items: an address has one. Of several losses the one next to the proof is taken, because one VMA takes
the place of another at once. From the first to the last instant that comes into question the life is *in
doubt*; at any other it is sure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.alive import AliveIndex
from replay.state.order import ALWAYS, NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from replay.state.gaps import Gaps

    Int = NDArray[np.int64]

BEGIN: Final = "begin"
END: Final = "end"


def settle(lives: pl.DataFrame, gaps: Gaps, ev_exit_mmap: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals, with the instants that were lost where the capture proves them to lie.

    Args:
        lives: ``vma``, ``mm``, ``vm_start``, ``vm_end``; ``born``, ``died`` (places), their ``_seq`` and
            ``_ts_ns``; ``begin_seen``, ``end_seen``: whether the insertion and the removal were seen.
        gaps: The losses.
        ev_exit_mmap: Table of this name: after it no VMA of the mm is left.

    Returns:
        ``lives`` with other instants; ``uncertain``: BEGIN or END, the one that is not sure; and
        ``doubt_from``, ``doubt_until``: places between which (first inclusive, last exclusive) the interval
        may or may not have been on its tree. Null: nothing is in doubt.
    """
    born, died = lives["born"].to_numpy(), lives["died"].to_numpy()
    begin_seen, end_seen = (lives[name].to_numpy() for name in ("begin_seen", "end_seen"))
    spaces = _Spaces(lives)
    ends = np.flatnonzero(~end_seen & gaps.within(born, died))
    proof = spaces.next_at(ends, np.where(begin_seen, born, died - 1), born[ends])
    bound = np.minimum.reduce([died[ends], proof, _next(lives[ends], born[ends], ev_exit_mmap, ["mm"])])
    settled = died.copy()
    settled[ends] = np.minimum(gaps.deaths(born[ends], bound), died[ends])
    gone = np.where(end_seen | (settled < died), settled, born)
    begins = np.flatnonzero(~begin_seen & gaps.within(np.full_like(died, ALWAYS), died))
    since = np.maximum(born[begins], spaces.last_at(begins, gone, died[begins]))
    begun = born.copy()
    begun[begins] = gaps.births(since, died[begins])
    marked = _doubted(
        lives,
        (ends, np.maximum(gaps.first_behind(born[ends]), born[ends]), np.maximum(bound, settled[ends])),
        (begins, since, np.minimum(gaps.last_before(died[begins]), died[begins])),
    )
    return _moved(marked, gaps, born=begun, died=settled)


def settle_items(items: pl.DataFrame, gaps: Gaps, unlisted: pl.DataFrame) -> pl.DataFrame:
    """As ``settle`` for lives of rmap_items: an address has one, which is listed or not.

    Args:
        items: ``rmap_item``, ``mm``, ``address``, ``born``, ``died``, ``gone``, ``born_ts_ns``,
            ``died_ts_ns``, ``begin_seen``, ``end_seen``.
        gaps: The losses.
        unlisted: ``rmap_item``, ``seq``: places at which one is known to be on no stable node.
    """
    born, died = items["born"].to_numpy(), items["died"].to_numpy()
    begin_seen, end_seen = (items[name].to_numpy() for name in ("begin_seen", "end_seen"))
    ends = np.flatnonzero(~end_seen & gaps.within(born, died))
    others = items.filter("begin_seen").select("mm", "address", seq="born")
    bound = np.minimum.reduce(
        [
            died[ends],
            _next(items[ends], born[ends], others, ["mm", "address"]),
            _next(items[ends], born[ends], unlisted, ["rmap_item"]),
        ]
    )
    settled = died.copy()
    settled[ends] = np.minimum(gaps.deaths(born[ends], bound), died[ends])
    begins = np.flatnonzero(~begin_seen & gaps.within(np.full_like(died, ALWAYS), died))
    mirrored = unlisted.with_columns(seq=-pl.col("seq"))
    last = -_next(items[begins], -died[begins], mirrored, ["rmap_item"])
    since = np.maximum(born[begins], np.where(last == -NEVER, ALWAYS, last))
    begun = born.copy()
    begun[begins] = gaps.births(since, died[begins])
    marked = _doubted(
        items,
        (ends, np.maximum(gaps.first_behind(born[ends]), born[ends]), np.maximum(bound, settled[ends])),
        (begins, since, np.minimum(gaps.last_before(died[begins]), died[begins])),
    )
    moved = pl.Series(settled != died)
    return _moved(marked, gaps, born=begun, died=settled).with_columns(
        gone=pl.when(moved).then(pl.Series(settled)).otherwise("gone")
    )


def _doubted(lives: pl.DataFrame, ends: tuple[Int, Int, Int], begins: tuple[Int, Int, Int]) -> pl.DataFrame:
    """``lives`` with ``uncertain``, and the doubts where it is known that the life has another side.

    Args:
        lives: The lives.
        ends: Rows of the lives that end unseen; first and last place of the doubt. NEVER: nothing proves that
            they ended at all.
        begins: Likewise of those that begin unseen. ALWAYS: it may have been before the first event.
    """
    parts = [
        pl.DataFrame({"row": rows, "doubt_from": first, "doubt_until": last}).with_columns(
            uncertain=pl.lit(name)
        )
        for name, (rows, first, last) in ((END, ends), (BEGIN, begins))
    ]
    is_proven = pl.col("doubt_until") < NEVER
    doubts = pl.concat(parts).with_columns(
        pl.col("row").cast(pl.UInt32), pl.when(is_proven).then(pl.col("doubt_from", "doubt_until"))
    )
    return lives.with_row_index("row").join(doubts, on="row", how="left", maintain_order="left").drop("row")


def _moved(lives: pl.DataFrame, gaps: Gaps, **places: Int) -> pl.DataFrame:
    """``lives`` with other places, and the times of those that are others."""
    for name, place in places.items():
        is_other = pl.Series(place) != lives[name]
        lives = lives.with_columns(
            pl.when(is_other).then(gaps.time(place)).otherwise(f"{name}_ts_ns").alias(f"{name}_ts_ns"),
            *(
                pl.when(is_other).then(pl.Series(place)).otherwise(each).alias(each)
                for each in (name, f"{name}_seq")
                if each in lives.columns
            ),
        )
    return lives


def _next(lives: pl.DataFrame, after: Int, events: pl.DataFrame, by: list[str]) -> Int:
    """``seq`` of the first event of the same ``by`` behind ``after``; NEVER: there is none."""
    found = (
        lives.select(by)
        .with_columns(after=pl.Series(after, dtype=pl.Int64))
        .with_row_index("row")
        .sort("after")
        .join_asof(
            events.select(*by, "seq").sort("seq"),
            left_on="after",
            right_on="seq",
            by=by,
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .sort("row")
    )
    return found["seq"].fill_null(NEVER).to_numpy()


class _Spaces:
    """What else had the addresses of a life in its address space, or its struct vm_area_struct, and when.

    Args:
        lives: ``vma``, ``mm``, ``vm_start``, ``vm_end``. A VMA on several trees is not something else.
    """

    def __init__(self, lives: pl.DataFrame) -> None:
        ranges = lives.select("mm", "vma", "vm_start", "vm_end")
        self._vma = ranges["vma"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
        self._known = ranges.select(pl.all_horizontal(pl.all().is_not_null())).to_series().to_numpy()
        self._mm = ranges["mm"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
        self._same = ranges.select(pl.struct(pl.all()).rank("dense")).to_series().cast(pl.Int64).to_numpy()
        self._start, self._end = (lives[name].fill_null(0).to_numpy() for name in ("vm_start", "vm_end"))

    def next_at(self, asked: Int, seen: Int, after: Int) -> Int:
        """Place of the first proof behind ``after`` that something else has the addresses.

        Args:
            asked: The lives that are asked about, by their rows.
            seen: Place at which each life is known to be there. Shape (lives,).
            after: Shape of ``asked``.

        Returns:
            NEVER: there is no proof. Shape of ``asked``.
        """
        known = np.flatnonzero(self._known & (seen >= 0) & (seen < NEVER))
        answer = np.full(len(asked), NEVER)
        rows = np.flatnonzero(self._known[asked])
        if not len(rows) or not len(known):
            return answer
        mms = int(self._mm.max()) + 1
        place = (self._mm[known], seen[known], np.full(len(known), NEVER))
        by_start = AliveIndex(place[0], self._start[known], *place[1:], mms)
        by_end = AliveIndex(place[0], self._end[known], *place[1:], mms)
        lives = asked[rows]
        mm, same = self._mm[lives], self._same[lives]
        below_end = by_start.ranks_below(mm, self._end[lives])
        up_to_start = by_end.ranks_through(mm, self._start[lives])
        span = np.int64(int(seen[known].max()) + 2)
        own = np.sort(self._same[known] * span + seen[known])
        used = np.sort(self._vma[known] * span + seen[known])

        def count(places: Int, key: Int, until: Int) -> Int:
            first = np.searchsorted(places, key * span + after[rows], "right")
            return np.asarray(np.searchsorted(places, key * span + until, "right") - first, np.int64)

        def others(until: Int) -> Int:
            overlapping = by_start.changed_below(mm, after[rows], until, below_end)
            overlapping -= by_end.changed_below(mm, after[rows], until, up_to_start)
            # What is in both is the life's own VMA, on other trees.
            return overlapping + count(used, self._vma[lives], until) - 2 * count(own, same, until)

        low, high = np.minimum(after[rows], span - 1), np.full(len(rows), span - 1)
        found = others(high) > 0
        while (low + 1 < high).any():
            middle = (low + high) // 2
            is_there = others(middle) > 0
            low, high = np.where(is_there, low, middle), np.where(is_there, middle, high)
        answer[rows] = np.where(found, high, NEVER)
        return answer

    def last_at(self, asked: Int, left: Int, before: Int) -> Int:
        """Place of the last proof before ``before`` that something else had the addresses.

        Args:
            asked: The lives that are asked about, by their rows.
            left: Last place at which each life is known to have been there. Shape (lives,).
            before: Shape of ``asked``.

        Returns:
            ALWAYS: there is no proof. Shape of ``asked``.
        """
        known = left[(left >= 0) & (left < NEVER)]
        top = int(max(known.max(initial=0), before.max(initial=0))) + 1
        mirrored = np.where((left >= 0) & (left < NEVER), top - left, NEVER)
        found = self.next_at(asked, mirrored, top - before)
        return np.asarray(np.where(found == NEVER, ALWAYS, top - found), np.int64)
