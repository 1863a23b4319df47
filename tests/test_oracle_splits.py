"""The split audit against its slow twin: trees, call sites with their stacks, population, neighbours."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from replay.findings import splits
from replay.findings.merges import neighbours
from replay.model.rebuild import reconstruct
from replay.oracle import splits as oracle_splits
from replay.state.call_arguments import ARGUMENTS, said
from replay.state.families import one_by_one, roots
from replay.state.lifetimes import avc_lives
from schemas import TABLES
from tests.model_machine import histories
from tests.test_oracle import HISTORIES, history, table

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

    Events = dict[str, pl.DataFrame]

COMMS = {100: "last", 1: "one"}
CAUSES = ("ev_syscall", "ev_task", "ev_fault", "ev_avc")


@functools.cache
def words(name: str, *arguments: int | None) -> str | None:
    columns = {"name": pl.Series([name], dtype=pl.String)}
    columns |= {
        column: pl.Series([value], dtype=pl.UInt64)
        for column, value in zip(ARGUMENTS, arguments, strict=True)
    }
    found: str | None = said(pl.DataFrame(columns))[0]
    return found


def with_stacks(events: Events, told: int) -> Events:
    """Every event at twice its place; some of them are followed by the user stack of their task."""
    events = {
        name: frame.with_columns(pl.col("seq") * 2) if "seq" in frame.columns else frame
        for name, frame in events.items()
    }
    rows: list[dict[str, Any]] = []
    for name in CAUSES:
        for seq, ts_ns, cpu, pid in events[name].select("seq", "ts_ns", "cpu", "pid").iter_rows():
            number = seq * 2654435761 + told
            if number % 7 < told % 8:
                frames = None if number % 5 == 0 else f"0x{number % 3:x} < 0x10"
                rows.append({"seq": seq + 1, "ts_ns": ts_ns, "cpu": cpu, "pid": pid, "frames": frames})
    return events | {"ev_stack": table("ev_stack", sorted(rows, key=lambda row: row["seq"]))}


def agree(lives: pl.DataFrame, vma: pl.DataFrame, events: Events, most: int) -> dict[str, pl.DataFrame]:
    """Both ways, equal in every row; the tables."""
    families = roots(lives)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "SITES", most)
        found = splits.audit(lives, families, events, COMMS)
    fast = {"tree": found.tree, "split": found.split, "population": found.population}
    fast["refusal"] = neighbours(found, vma, events["ev_avc"])
    plain = {name: frame.to_dicts() for name, frame in events.items()}
    slow = oracle_splits.audit(
        lives.to_dicts(), families.to_dicts(), vma.to_dicts(), plain, COMMS, words, most
    )
    for name, frame in fast.items():
        told = table(name, slow[name]).select(TABLES[name].arrow.names)
        # Of neighbours no order is promised among those with equal counts and times.
        is_set = name == "refusal"
        assert_frame_equal(frame, told, check_row_order=not is_set, check_dtypes=False)
    return fast


@settings(derandomize=True, max_examples=40)
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), told=st.integers(0, 7), most=st.sampled_from((2, 100)))
def test_of_trees_that_probes_tell(numbers: bytes, anon_pgoff: bool, told: int, most: int) -> None:
    _, events = history(numbers, anon_pgoff=anon_pgoff, linear=False, unseen=True)
    events = with_stacks(events, told)
    lives, versions = avc_lives(events["ev_avc"], events["ev_syscall"])
    agree(one_by_one(lives.select(TABLES["avc"].arrow.names)), versions, events, most)


@settings(derandomize=True, max_examples=40)
@given(events=histories(), rules=st.sampled_from(("6.12", "7.3")), told=st.integers(0, 7))
def test_of_trees_that_the_model_makes(events: Events, rules: KernelRules, told: int) -> None:
    events = with_stacks(events, told)
    if "proc_map" in events:
        events["proc_map"] = events["proc_map"].with_columns(pl.col("place") * 2)
    rebuilt = reconstruct(events, rules)
    lives = one_by_one(rebuilt.lives.select(TABLES["avc"].arrow.names))
    agree(lives, rebuilt.versions, events, 100)


def test_the_histories_hold_what_the_audit_tells() -> None:
    """What the first test rests on: stacks, causes of every kind, neighbours apart and with other flags."""
    seen: dict[str, set[object]] = {"stack": set(), "cause_event": set(), "reasons": set()}
    for seed in range(12):
        numbers = bytes(
            (seed * 7919 + place * place * 31 + place * 104729) >> 3 & 0xFF for place in range(900)
        )
        _, events = history(numbers, anon_pgoff=seed % 2 == 0, linear=False)
        events = with_stacks(events, 6)
        lives, versions = avc_lives(events["ev_avc"], events["ev_syscall"])
        found = agree(one_by_one(lives.select(TABLES["avc"].arrow.names)), versions, events, 100)
        for name, values in seen.items():
            values |= set(found["refusal" if name == "reasons" else "split"][name])
    assert seen["stack"] > {None, "0x0 < 0x10", "0x1 < 0x10"}
    assert seen["cause_event"] > {"page_fault", "mprotect", "munmap", "mremap"}
    assert {"apart", "anon_vma"} <= seen["reasons"]
