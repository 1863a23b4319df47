"""The model against its twin: any history gives the same lives and versions, interpreted and compiled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.model.ahead import MANY
from replay.model.rebuild import Modelled, reconstruct
from replay.oracle.model import OracleModel
from replay.state.kernel import RULES
from replay.state.merge_rules import REASONS
from tests.bench_model import history
from tests.model_machine import BASE, PAGE, History, empty_events, histories

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.state.kernel import KernelRules

TRUTH = Path(__file__).parent / "data" / "truth"
LIFE = (
    *("avc", "anon_vma", "vma", "mm", "first_pgoff", "last_pgoff", "vm_start", "vm_end", "vm_pgoff", "pid"),
    *("born_seq", "born_ts_ns", "died_seq", "died_ts_ns"),
)
VERSION = (
    *("vma", "mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags", "anon_vma"),
    *("born_seq", "born_ts_ns", "died_seq", "died_ts_ns", "cause_event"),
)
REFUSAL = ("seq", "ts_ns", "pid", "vm_flags", "anon_vma", "older", "newer")


def rows(frame: pl.DataFrame, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return frame.select(names).rows()


def twin_rows(found: list[dict[str, Any]], names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """What the twin found, without what lived in one operation only."""
    lasting = [each for each in found if each["born_seq"] is None or each["born_seq"] != each["died_seq"]]
    return [tuple(each[name] for name in names) for each in lasting]


def said(reasons: int) -> set[str]:
    """The words of the bits."""
    return {word for bit, word in REASONS.items() if reasons & bit}


def check(events: Mapping[str, pl.DataFrame], rules: KernelRules, *, compiled: bool = False) -> Modelled:
    """Both engines give the same."""
    model = reconstruct(events, rules, compiled=compiled)
    twin = OracleModel(RULES[rules]).run(events)
    assert rows(model.lives, LIFE) == twin_rows(twin.lives, LIFE)
    assert rows(model.versions, VERSION) == twin_rows(twin.versions, VERSION)
    assert [(*row, said(older), said(newer)) for *row, older, newer in rows(model.refusals, REFUSAL)] == [
        tuple(each[name] for name in REFUSAL) for each in twin.refusals
    ]
    assert Counter(model.doubts) == twin.doubts
    return model


@given(events=histories(), rules=st.sampled_from(("6.12", "7.3")))
@settings(max_examples=100)
def test_any_history_is_what_the_twin_makes_of_it(
    events: dict[str, pl.DataFrame], rules: KernelRules
) -> None:
    check(events, rules)


@given(events=histories(), rules=st.sampled_from(("6.12", "7.3")))
@settings(max_examples=50)
def test_vmas_do_not_overlap_and_trees_hold_what_vmas_are(
    events: dict[str, pl.DataFrame], rules: KernelRules
) -> None:
    model = reconstruct(events, rules)
    every_vma, every_life = (frame.to_dicts() for frame in (model.versions, model.lives.drop("evidence")))
    for place in range(sum(len(frame) for frame in events.values())):
        vmas = [each for each in every_vma if alive(each, place)]
        ends: dict[int, int] = {}
        for vma in sorted(vmas, key=lambda each: (each["mm"], each["vm_start"])):
            assert ends.get(vma["mm"], 0) <= vma["vm_start"] < vma["vm_end"]
            ends[vma["mm"]] = vma["vm_end"]
        lives = [each for each in every_life if alive(each, place)]
        faulted = {span(each): each["anon_vma"] for each in vmas if each["anon_vma"] is not None}
        assert {span(each) for each in lives} == set(faulted)
        trees = {(span(each), each["anon_vma"]) for each in lives}
        assert trees >= set(faulted.items())
        assert len(trees) == len(lives)


def span(row: dict[str, Any]) -> tuple[int, int, int]:
    """The VMA of a life or a version, and its range."""
    return row["vma"], row["vm_start"], row["vm_end"]


def alive(row: dict[str, Any], place: int) -> bool:
    """Whether a life or a version is there at a place."""
    born = row["born_seq"] is None or row["born_seq"] <= place
    return born and (row["died_seq"] is None or row["died_seq"] > place)


@pytest.fixture(scope="module")
def random_capture() -> dict[str, pl.DataFrame]:
    with open_capture(TRUTH / "6.12_s5-random_truth.dat") as capture:
        return {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}


def test_compiled_and_interpreted_agree(random_capture: dict[str, pl.DataFrame], rules: KernelRules) -> None:
    compiled = check(random_capture, rules, compiled=True)
    assert compiled.lives.height > 3000
    assert compiled.lives.equals(reconstruct(random_capture, rules, compiled=False).lives)


def test_looking_ahead_changes_nothing() -> None:
    """More VMAs than the caches hold: machine code asks for memory before it needs it."""
    model = check(history(24_000, 20_000), "7.3", compiled=True)
    assert model.versions["died_seq"].null_count() > 2 * MANY


def test_nothing_in_nothing_out() -> None:
    model = reconstruct(empty_events(), "7.3")
    assert (model.lives.height, model.versions.height, model.doubts) == (0, 0, {})


@pytest.mark.parametrize(
    ("name", "arguments", "doubt"),
    [
        ("process_madvise", (3, BASE, 1, 10, 0), "process_madvise"),
        ("userfaultfd", (1,), "userfaultfd"),
        ("shmat", (8, 0, 0), "shmat_size"),
        ("prctl", (0x53564D41, 0, BASE, PAGE, BASE), "named_vmas"),
    ],
)
def test_calls_that_their_arguments_do_not_tell_are_counted(
    name: str, arguments: tuple[int, ...], doubt: str
) -> None:
    history = History()
    history.call(7, name, arguments, 0)
    history.call(7, name, arguments, -22)
    assert check(history.events(), "7.3").doubts == {doubt: 1}
    unknown = history.events()
    calls = unknown["ev_syscall"]
    unknown["ev_syscall"] = calls.with_columns(ret=pl.when(pl.col("ret") == 0).then(None).otherwise("ret"))
    assert doubt not in check(unknown, "7.3").doubts


@pytest.mark.parametrize(("rules", "doubts"), [("6.12", {}), ("7.3", {"process_madvise": 1})])
def test_process_madvise_changes_flags_from_7_3_on_only(rules: KernelRules, doubts: dict[str, int]) -> None:
    """Before, it takes no advice that changes a VMA; for another process it never does."""
    history = History()
    history.call(7, "process_madvise", (3, BASE, 1, 10, 0), PAGE)
    history.call(7, "process_madvise", (3, BASE, 1, 20, 0), PAGE)
    assert check(history.events(), rules).doubts == doubts


def test_the_rest_of_a_capture_is_not_read(random_capture: dict[str, pl.DataFrame]) -> None:
    stock = ("ev_syscall", "ev_task", "ev_fault")
    blind = empty_events() | {name: random_capture[name] for name in stock}
    assert reconstruct(blind, "6.12").lives.equals(reconstruct(random_capture, "6.12").lives)


def test_tasks_that_nobody_told_of_are_said() -> None:
    history = History()
    history.enter(7, "clone3", (BASE, 88))
    history.fork(7, 8, None)
    history.call(7, "brk", (BASE,), BASE)
    history.call(7, "mremap", (BASE, PAGE, PAGE, 3, BASE + 8 * PAGE), BASE + 8 * PAGE)
    model = reconstruct(history.events(), "6.12")
    assert model.doubts == {"clone_flags": 1, "brk_before": 1, "mremap_of_unknown": 1}
