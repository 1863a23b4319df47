"""The oracle's view of lives whose begin or end was lost: one life, one other life, one loss at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BEFORE = -1
AFTER = (1 << 63) - 1

Gap = tuple[int, int]
"""Last place before a loss and first place behind it; losses are in order and do not overlap."""


@dataclass
class Life:
    """One interval on a tree: where its VMA is, and which of its two ends were seen."""

    vma: int
    mm: int
    start: int
    end: int
    born: int
    died: int
    begin_seen: bool
    end_seen: bool
    uncertain: str | None = None

    def excludes(self, other: Life) -> bool:
        """Whether both cannot be there at once: one struct is one VMA, and VMAs of an mm do not overlap."""
        if (self.mm, self.vma, self.start, self.end) == (other.mm, other.vma, other.start, other.end):
            return False
        overlap = self.mm == other.mm and self.start < other.end and other.start < self.end
        return overlap or self.vma == other.vma


def settle(lives: Sequence[Life], gaps: Sequence[Gap], exits: Sequence[tuple[int, int]]) -> None:
    """Put the lost begins and ends where they are proven to lie.

    Args:
        lives: Are changed.
        gaps: The losses.
        exits: (mm, place) of each exit_mmap().
    """
    ended = {id(life): life.died for life in lives if life.end_seen}
    ends: dict[int, int] = {}
    for life in lives:
        if life.end_seen or not lost(gaps, life.born, life.died):
            continue
        proofs = [life.died]
        proofs += [place for mm, place in exits if mm == life.mm and place > life.born]
        for other in lives:
            seen = other.born if other.begin_seen else other.died - 1
            if other.excludes(life) and seen > life.born:
                proofs.append(seen)
        ends[id(life)] = min(death(gaps, life.born, min(proofs)), life.died)
        life.uncertain = "end"
    begins: dict[int, int] = {}
    for life in lives:
        if life.begin_seen or not lost(gaps, BEFORE, life.died):
            continue
        since = life.born
        for other in lives:
            left = ended.get(id(other), min(ends.get(id(other), AFTER), AFTER))
            if left == AFTER or (not other.end_seen and left == other.died):
                left = other.born
            if other.excludes(life) and left < life.died:
                since = max(since, left)
        begins[id(life)] = birth(gaps, since, life.died)
        life.uncertain = "begin"
    for life in lives:
        life.died = ends.get(id(life), life.died)
        life.born = begins.get(id(life), life.born)


def lost(gaps: Sequence[Gap], after: int, until: int) -> bool:
    """Whether a loss lies somewhere between two places."""
    return any(begin < until and end > after for begin, end in gaps)


def death(gaps: Sequence[Gap], born: int, proof: int) -> int:
    """The loss next to the proof that a life was over: one before it, else the one behind it."""
    if proof == AFTER:
        return AFTER
    before = [end for begin, end in gaps if begin < proof]
    behind = [gap for gap in gaps if gap[0] >= proof]
    if before and before[-1] > born:
        end = min(before[-1], proof)
        if not behind or proof - end <= behind[0][0] - proof:
            return end
    return behind[0][1] if behind else AFTER


def birth(gaps: Sequence[Gap], since: int, died: int) -> int:
    """The loss next to the proof that a life had not begun: one behind it, else the one before it."""
    if since == BEFORE:
        return BEFORE
    behind = [gap for gap in gaps if gap[1] > since]
    before = [end for _, end in gaps if end <= since]
    if behind and behind[0][0] < died and (not before or behind[0][0] - since <= since - before[-1]):
        return max(min(behind[0][1], died - 1), since)
    return since
