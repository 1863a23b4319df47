"""The slow twin of ``findings.segments``: one walk after the other, one page-table event after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from replay.oracle.held_up import held_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, Any]


def segments(
    walks: Sequence[Row],
    loops: Sequence[Row],
    hits: Sequence[Row],
    lives: Sequence[Row],
    switches: Sequence[Row],
    locks: Sequence[Row],
) -> list[dict[str, Any]]:
    """The parts of walks.

    Args:
        walks: Rows of ``lifetimes.walk_lives``, those that end in the capture.
        loops: Rows of table ``loop`` of the strategy that the kernel ran.
        hits: ``steps.hits``.
        lives: ``lifetimes.avc_lives``.
        switches: Rows of ``ev_switch``.
        locks: Rows of ``ev_lock``.
    """
    parts = []
    for walk in walks:
        own = [loop for loop in loops if loop["walk_id"] == walk["walk_id"]]
        iterations = [loop["iterations"] for loop in own]
        calls = [loop["rmap_one_calls"] for loop in own]
        whole = (1.0, float(len(own)), float(sum(iterations)), float(sum(calls)))
        points = [(walk["enter"], walk["ts_ns"], (0.0, 0.0, 0.0, 0.0))]
        seen: dict[int, int] = {}
        for hit in sorted(hits, key=lambda row: row["seq"]):
            position = hit["position"]
            if hit["walk_id"] != walk["walk_id"] or position is None:
                continue
            seen[position] = seen.get(position, 0) + 1
            if position >= len(own) or (rank := _rank(own[position], hit, lives)) is None:
                continue
            passed = (
                0.5,
                position + 1.0,
                float(sum(iterations[:position]) + rank),
                sum(calls[:position]) + seen[position] - 0.5,
            )
            reached = points[-1][2]
            bounded = tuple(
                min(max(now, then), end) for now, then, end in zip(passed, reached, whole, strict=True)
            )
            points.append((hit["seq"], hit["ts_ns"], bounded))
        points.append((walk["exit"], walk["end_ns"], whole))
        for (seq, ts_ns, passed), (end, end_ns, reached) in pairwise(points):
            alone = {"walk_id": 0, "pid": walk["pid"], "enter": seq, "exit": end, "ts_ns": ts_ns}
            held = held_up(switches, locks, [{**alone, "end_ns": end_ns}])[0] or 0
            counts = [then - now for now, then in zip(passed, reached, strict=True)]
            names = ("walk", "loops", "iterations_total", "rmap_one_calls")
            took = max(end_ns - ts_ns - held, 0)
            row = dict(zip(names, counts, strict=True))
            parts.append({"walk_id": walk["walk_id"], **row, "took_ns": took})
    return parts


def _rank(loop: Row, hit: Row, lives: Sequence[Row]) -> int | None:
    """How many intervals the loop has visited with that of the page, at the event; None: it is not there."""
    there = [
        (life["first_pgoff"], life["born"], place, life)
        for place, life in enumerate(lives)
        if life["anon_vma"] == loop["anon_vma"]
        and life["born"] <= hit["seq"] < life["died"]
        and life["first_pgoff"] <= loop["last_pgoff"]
        and life["last_pgoff"] >= loop["first_pgoff"]
    ]
    for rank, (*_, life) in enumerate(sorted(there, key=lambda each: each[:3]), 1):
        if life["mm"] == hit["mm"] and life["vm_start"] <= hit["address"] < life["vm_end"]:
            return rank
    return None
