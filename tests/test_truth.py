"""The replay against the kernel's own counts: every loop of every walk of every capture that has them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from captures import open_capture
from captures.canonical import canonical_events
from replay.walks.exact import replay_exact
from tests.truth import captures_with_truth, compare

ROOT = Path(__file__).parent.parent
CAPTURES = [
    *captures_with_truth(ROOT / "captures" / "samples"),
    *captures_with_truth(ROOT / "tests" / "data" / "truth"),
]

# Walks during which another task changed a loop's tree while no page-table event of the walk says before
# which loop: in the second pass of a restore walk nothing is left to restore. The loops' counts are the
# trees' at the loops' true starts (which tests.truth checks), but the capture does not hold those.
UNTOLD = {
    "6.12_s11-victims_truth-tiny.dat": [1, 5, 7, 9, 11, 13, 19],
    "6.12_s5-random_truth-long.dat": [9],
}


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_every_loop_equals_the_kernels(path: Path) -> None:
    result = compare(path)
    print(result)
    assert result.loops > 0
    for text in result.differences.values():
        pytest.fail(text)
    assert result.explained == UNTOLD.get(path.name, [])


def test_all_kernels_and_walks_are_there() -> None:
    results = [compare(path) for path in CAPTURES]
    loops = sum(result.loops for result in results)
    walks = sum(result.to_end + result.early for result in results)
    print(f"{len(results)} captures, {walks} walks, {loops} loops compared")
    assert (len(results), walks, loops) == (26, 2480, 34363)
    assert sum(result.early for result in results) == 711


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_the_replay_does_not_read_the_kernels_counts(path: Path) -> None:
    with open_capture(path) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    assert any(len(frame) for name, frame in events.items() if name.startswith("ev_obs_"))
    blind = {name: frame.clear() if name.startswith("ev_obs_") else frame for name, frame in events.items()}
    with_counts, without = (replay_exact(each, ("full", "vm_pgoff")) for each in (events, blind))
    for name in ("loop", "walk", "miss", "rmap_item", "avc", "vma"):
        assert_frame_equal(getattr(with_counts, name), getattr(without, name))
