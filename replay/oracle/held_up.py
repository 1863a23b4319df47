"""The slow twin of ``replay.findings.held_up``: one event after the other, one walk after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = Mapping[str, Any]


def held_up(switches: Sequence[Row], locks: Sequence[Row], walks: Sequence[Row]) -> dict[int, int | None]:
    """Ns by ``walk_id`` of the walks that end in the capture; None: no events that could tell.

    Args:
        switches: Rows of ``ev_switch``.
        locks: Rows of ``ev_lock``.
        walks: Rows of ``lifetimes.walk_lives``.
    """
    ended = [walk for walk in walks if walk["end_ns"] is not None]
    if not switches and not locks:
        return {walk["walk_id"]: None for walk in ended}
    ordered = sorted([*switches, *locks], key=lambda row: row["seq"])
    found: dict[int, int | None] = {}
    for walk in ended:
        inside = [row for row in ordered if walk["enter"] < row["seq"] < walk["exit"]]
        off = waiting = False
        now, total = walk["ts_ns"], 0
        for row in [*inside, {"ts_ns": walk["end_ns"]}]:
            total += row["ts_ns"] - now if off or waiting else 0
            now = row["ts_ns"]
            if "prev_pid" in row:
                off = row["prev_pid"] == walk["pid"] or (off and row["next_pid"] != walk["pid"])
            elif "is_end" in row and row["pid"] == walk["pid"]:
                waiting = not row["is_end"]
        found[walk["walk_id"]] = total
    return found
