"""Waits for the lock of an anon_vma family, against the capture's events read one at a time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.findings.victims import lost, waits
from replay.state.families import one_by_one, roots
from replay.walks.exact import replay_exact

VICTIMS = Path(__file__).parent / "data" / "truth" / "6.12_s11-victims_truth-tiny.dat"
RWSEM = 8  # offset of rwsem in struct anon_vma of that kernel, by its BTF
READ, WRITE = 2, 4


def test_waits_equal_the_events_paired_by_hand() -> None:
    with open_capture(VICTIMS) as capture:
        tables = canonical_events(capture)
        raw = capture.decode(["ksmprobe:avc_insert"])["ksmprobe:avc_insert"]
        comms = capture.comms()
    events = {name: pl.DataFrame(table) for name, table in tables.items()}
    # this capture's probe also fetches anon_vma->root, which the analysis does not read
    true_roots = set(raw["anon_vma_root"].to_pylist())
    exact = replay_exact(events, ("full",))
    found = waits(exact, roots(one_by_one(exact.avc)), events, comms)
    open_waits: dict[int, dict[str, int]] = {}
    wanted = []
    for event in events["ev_lock"].sort("seq").rows(named=True):
        if not event["is_end"]:
            open_waits[event["pid"]] = event
            continue
        begin = open_waits.pop(event["pid"], None)
        if begin and begin["lock_flags"] & (READ | WRITE) and begin["lock"] - RWSEM in true_roots:
            wanted.append((begin["ts_ns"], event["ts_ns"], begin["pid"], bool(begin["lock_flags"] & WRITE)))
    assert len(wanted) > 50
    assert sorted(found.drop_nulls("end_ns").select("ts_ns", "end_ns", "pid", "is_write").rows()) == sorted(
        wanted
    )
    walks = [(row["ts_ns"], row["end_ns"], row["pid"]) for row in exact.walks.rows(named=True)]
    for row in found.drop_nulls("end_ns").rows(named=True):
        behind = sum(
            max(0, min(end, row["end_ns"]) - max(begin, row["ts_ns"]))
            for begin, end, pid in walks
            if pid != row["pid"]
        )
        assert row["behind_walks_ns"] == behind
    assert {"v-mprotect", "v-fault", "v-fork"} <= set(found.filter("is_write")["comm"])


def test_roots_equal_the_kernels_own_pointer() -> None:
    with open_capture(VICTIMS) as capture:
        raw = pl.DataFrame(capture.decode(["ksmprobe:avc_insert"])["ksmprobe:avc_insert"])
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    derived = roots(one_by_one(replay_exact(events, ("full",)).avc))
    seen = raw.select("seq", "anon_vma", "anon_vma_root").sort("seq")
    both = seen.join_asof(derived, left_on="seq", right_on="since", by="anon_vma", check_sortedness=False)
    right = (both["anon_vma_root"] == both["root"]).mean()
    # families that are older than the capture have a root that no event shows
    assert right == pytest.approx(1.0, abs=0.01)


def test_what_is_lost_behind_a_walk_shrinks_as_the_walk_does() -> None:
    wait = pl.DataFrame(
        {
            # 100 ns, of them 80 behind walk 0; 50 ns behind nothing; a reader; a wait without end
            "ts_ns": [0, 200, 300, 400],
            "end_ns": [100, 250, 390, None],
            "is_write": [True, True, False, True],
            "walk_id": [0, None, 0, 0],
            "behind_walks_ns": [80, 0, 90, 0],
        }
    )
    walk = pl.DataFrame(
        {
            "walk_id": [0, 0, 0, 0],
            "strategy": ["observed", "full", "linear", "mine"],
            "ts_ns": [0, 0, 0, 0],
            "end_ns": [1000, 1000, 1000, 1000],
            "held_up_ns": [200] * 4,
            "predicted_ns": [None, 800, 80, None],
            "predicted_low_ns": [None, 400, 40, None],
            "predicted_high_ns": [None, 1600, 160, None],
        }
    )
    columns = ["strategy", "waits", "lost_ns", "behind_walks_ns", "lost_least_ns", "lost_most_ns"]
    assert lost(wait, walk).select(columns).rows() == [
        ("observed", 2, 150, 80, None, None),
        ("full", 2, 150, 80, 110, 230),
        ("linear", 2, 78, 8, 74, 86),
        ("mine", 2, None, None, None, None),
    ]
    assert lost(wait.clear(), walk).is_empty()


def test_a_walk_that_was_held_up_all_the_time_foretells_nothing() -> None:
    """Text tells whole microseconds: nothing may be left of a short walk."""
    wait = pl.DataFrame(
        {"ts_ns": [0], "end_ns": [100], "is_write": [True], "walk_id": [0], "behind_walks_ns": [80]}
    )
    walk = pl.DataFrame(
        {
            "walk_id": [0, 0],
            "strategy": ["observed", "full"],
            "ts_ns": [0, 0],
            "end_ns": [1000, 1000],
            "held_up_ns": [1000, 1000],
            **{f"predicted{end}_ns": [None, 500] for end in ("", "_low", "_high")},
        }
    )
    assert lost(wait, walk).select("strategy", "lost_ns").rows() == [
        ("observed", 100),
        ("full", None),
    ]
