"""Compares the replay with the kernel's own counts, loop by loop, for every capture that has them.

    python -m tests.truth FOLDER...

A capture ``NAME.dat`` has them in ``NAME.truth.json.gz``, made from probes on the tree iterator and on
rmap_one, or by kernels that count for themselves. The strategy compared is the one that the traced kernel
ran. Everything is compared: number and order of loops, iterations, rmap_one calls, and where the truth has
them the rmap_item, the range and both skips. Nothing is tolerated; a walk either equals the kernel's or is
told as a difference.

The one thing that a capture may not tell is when, within a walk, a loop ran; it matters where another task
changed that loop's tree meanwhile. The replay marks such loops (``assumed``). So differences are split:
walks that differ only in marked loops, where the kernel's own count is the tree's at the loop's true start
(``explained``), and all others.
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from captures import open_capture
from captures.canonical import canonical_events
from replay.state.lifetimes import avc_lives
from replay.state.trees import Trees
from replay.strategies import BUILTIN
from replay.walks.exact import Exact, replay_exact

SUFFIX = ".truth.json.gz"


@dataclass
class Comparison:
    """What the comparison of one capture gave.

    Attributes:
        path: The capture.
        to_end, early: Walks of the truth that ran to their end, and that ended early.
        loops: Loops of them.
        assumed: Loops of the compared strategies that the replay marks as assumed.
        explained: walk_id of walks that differ in marked loops only, as their true starts explain.
        differences: walk_id and text of every other walk that differs.
    """

    path: Path
    to_end: int = 0
    early: int = 0
    loops: int = 0
    assumed: int = 0
    explained: list[int] = field(default_factory=list)
    differences: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {self.to_end} walks to their end, {self.early} early, {self.loops} loops;"
            f" {len(self.differences)} walks differ;"
            f" where the capture tells no instant also {self.explained} ({self.assumed} loops)"
        )


def native_strategy(path: Path, truth: dict[str, Any], walk: dict[str, Any]) -> str:
    """The strategy that the traced kernel ran: its own word, else full up to 7.2 and linear from 7.3 on."""
    own = walk.get("strategy", truth.get("strategy"))
    if own is not None:
        return str(own)
    with open_capture(path) as capture:
        release = capture.info.kernel_release or ""
    major, minor = (int(part) for part in release.split(".")[:2])
    return "full" if (major, minor) < (7, 3) else "linear"


def compare(path: Path) -> Comparison:
    """Compare one capture with its truth file."""
    with gzip.open(path.with_name(path.name.removesuffix(".dat") + SUFFIX)) as file:
        truth = json.load(file)
    with open_capture(path) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    exact = replay_exact(events, tuple(BUILTIN))
    result = Comparison(path)
    walks = [walk for walk in truth["walks"] if walk["complete"]]
    assert len(walks) == len(exact.walks), f"{len(exact.walks)} walks replayed, {len(walks)} in the truth"
    loops = exact.replayed.loop.partition_by("walk_id", "strategy", as_dict=True)
    native = native_strategy(path, truth, walks[0]) if walks else ""
    for walk_id, walk in enumerate(walks):
        strategy = walk.get("strategy", native)
        entry = exact.walks.row(walk_id, named=True)
        assert entry["rmap_one"] == walk["rmap_one"]
        assert entry["stable_node"] == number(walk["stable_node"])
        wanted = [counts(loop) for loop in walk["loops"]]
        mine = loops.get((walk_id, strategy))
        rows = [] if mine is None else mine.rows(named=True)
        got = [{name: row[name] for name in one} for row, one in zip(rows, wanted, strict=False)]
        result.to_end += not ended_early(walk)
        result.early += ended_early(walk)
        result.loops += len(wanted)
        result.assumed += sum(row["assumed"] for row in rows)
        if len(rows) == len(wanted) and got == wanted:
            continue
        odd = [row for row, one in zip(got, wanted, strict=False) if row != one]
        marked = [row["assumed"] for row, a, b in zip(rows, got, wanted, strict=False) if a != b]
        if len(rows) == len(wanted) and all(marked) and explained(walk, exact, events, strategy):
            result.explained.append(walk_id)
            continue
        result.differences[walk_id] = (
            f"{path.name} walk {walk_id} ({walk['rmap_one']}, {strategy}): {len(rows)} loops for the"
            f" kernel's {len(wanted)}, {len(odd)} of them differ\n"
            f"  kernel: {[tuple(one.values()) for one in wanted]}\n"
            f"  replay: {[tuple(one.values()) for one in got]}"
        )
    return result


def explained(walk: dict[str, Any], exact: Exact, events: dict[str, pl.DataFrame], strategy: str) -> bool:
    """Whether every iteration count is the tree's at the loop's true start, which only the truth tells."""
    trees = Trees(avc_lives(events["ev_avc"], events["ev_syscall"])[0])
    codes = dict(trees.codes.select("anon_vma", "tree").iter_rows())
    walk_loops = walk["loops"] if not ended_early(walk) else walk["loops"][:-1]
    if strategy != "full":
        return False
    asked = pl.DataFrame(
        {
            "tree": [codes[number(loop["anon_vma"])] for loop in walk_loops],
            "ts": [loop["ts"] for loop in walk_loops],
        }
    )
    instant = trees.changes.seq_at(asked["ts"].to_numpy())
    counted = trees.everything(asked["tree"].to_numpy(), instant)
    return bool((counted == [loop["iterations"] for loop in walk_loops]).all())


def ended_early(walk: dict[str, Any]) -> bool:
    """Whether something ended the walk before the end of its last loop."""
    if "ended" in walk:
        return bool(walk["ended"] != "end")
    return any(loop.get("early_exit", False) for loop in walk["loops"])


def counts(loop: dict[str, Any]) -> dict[str, int]:
    """What the truth says of one loop, by the names of table ``loop``."""
    if "calls" in loop:
        return {
            "iterations": loop["iterations"],
            "rmap_one_calls": len(loop["calls"]),
            "first_pgoff": number(loop["first"]),
            "last_pgoff": number(loop["last"]),
            "anon_vma": number(loop["anon_vma"]),
        }
    same = ("iterations", "skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls", "search_new_forks")
    return {
        **{name: loop[name] for name in same},
        **{name: number(loop[name]) for name in ("rmap_item", "anon_vma", "mm", "address")},
        "first_pgoff": number(loop["first"]),
        "last_pgoff": number(loop["last"]),
    }


def number(value: int | str) -> int:
    """An integer, or one in text with its base."""
    return int(value, 0) if isinstance(value, str) else value


def captures_with_truth(folder: Path) -> list[Path]:
    """The captures in a folder, at any depth, that have a truth file."""
    found = sorted(folder.rglob("*" + SUFFIX))
    return [path.with_name(path.name.removesuffix(SUFFIX) + ".dat") for path in found]


def main(folders: list[str]) -> int:
    """Compare all captures of the folders and print what came out; 1 if any walk differs unexplained."""
    results = [compare(path) for folder in folders for path in captures_with_truth(Path(folder))]
    for result in results:
        print(result)
        for text in result.differences.values():
            print("  " + text)
    walks = sum(result.to_end + result.early for result in results)
    print(
        f"{len(results)} captures, {walks} walks, {sum(result.loops for result in results)} loops:"
        f" {sum(len(result.differences) for result in results)} walks differ,"
        f" {sum(len(result.explained) for result in results)} more where the capture tells no instant"
    )
    return int(any(result.differences for result in results) or not results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
