"""Cost of the replay by the number of lives and loops, and against a compiled walk of the same linked tree.

Usage: python -m tests.bench_scale [--largest LIFETIMES]

Three sizes, each in a process of its own: processor and wall time, peak memory, and time by n log n, which
stays the same when the cost is n log n. Then `full` on one tree of 20,000 VMAs: the answer for one loop by
counting, beside an in-order walk over the linked nodes, compiled by numba. Nodes and VMAs have the kernel's
sizes (64 and 192 bytes) and lie in memory in no order, as after splits. Both figures are processor time.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import numba
import numpy as np
import polars as pl

from replay.state.lifetimes import avc_lives
from replay.state.trees import Trees
from replay.strategies import BUILTIN
from replay.walks.exact import replay_exact
from tests.scale_state import scale_events

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIFETIMES: Final = 1_000_000
LOOPS_PER_LIFETIME: Final = 2.5
NODES: Final = 20_000
PEER_LOOPS: Final = 200
COUNTED_LOOPS: Final = 100_000
ADDRESS: Final = 4096 * 7

NODE: Final = np.dtype(
    {
        "names": ["vma", "left", "right", "parent"],
        "formats": [np.int64] * 4,
        "itemsize": 64,
    }
)
VMA: Final = np.dtype({"names": ["start", "end"], "formats": [np.int64] * 2, "itemsize": 192})


def measure(lifetimes: int) -> None:
    """One size in this process: a line of the table."""
    loops = int(lifetimes * LOOPS_PER_LIFETIME)
    events = scale_events(lifetimes, loops)
    wall, cpu = time.perf_counter(), time.process_time()
    exact = replay_exact(events, tuple(BUILTIN))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rows = len(exact.loop)
    n = lifetimes + rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    by_n_log_n = 1e9 * cpu / (n * math.log2(n))
    print(f"{lifetimes:10,} {rows:11,} {cpu:8.1f} {wall:8.1f} {peak:9.2f} {by_n_log_n:14.1f}", flush=True)


@numba.njit
def walk_tree(node: NDArray[Any], vma: NDArray[Any], root: int, address: int) -> tuple[int, int]:
    """rmap_walk_ksm()'s loop over the whole tree: iterations, and those whose VMA holds the address."""
    iterations = held = 0
    at = root
    while node[at].left >= 0:
        at = node[at].left
    while at >= 0:
        iterations += 1
        area = vma[node[at].vma]
        if area.start <= address < area.end:
            held += 1
        if node[at].right >= 0:
            at = node[at].right
            while node[at].left >= 0:
                at = node[at].left
        else:
            child = at
            at = node[at].parent
            while at >= 0 and node[at].right == child:
                child = at
                at = node[at].parent
    return iterations, held


def linked_tree(nodes: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    """A balanced tree of VMAs of one page each; nodes and VMAs at random places in memory."""
    random = np.random.default_rng(2)
    place, area = random.permutation(nodes), random.permutation(nodes)
    node, vma = np.zeros(nodes, NODE), np.zeros(nodes, VMA)
    pages = np.arange(nodes)
    vma["start"][area], vma["end"][area] = 4096 * pages, 4096 * (pages + 1)
    node["vma"][place] = area

    def link(low: int, high: int, parent: int) -> int:
        if low >= high:
            return -1
        middle = (low + high) // 2
        own = int(place[middle])
        node["parent"][own] = parent
        node["left"][own] = link(low, middle, own)
        node["right"][own] = link(middle + 1, high, own)
        return own

    return node, vma, link(0, nodes, -1)


def against_the_walk() -> None:
    """Processor time of one loop of `full` over one tree: walked, counted, and in a whole replay."""
    node, vma, root = linked_tree(NODES)
    walk_tree(node, vma, root, ADDRESS)
    begin = time.process_time()
    for _ in range(PEER_LOOPS):
        assert walk_tree(node, vma, root, ADDRESS) == (NODES, 1)
    walked = (time.process_time() - begin) / PEER_LOOPS

    events = scale_events(2 * NODES, COUNTED_LOOPS)
    trees = Trees(avc_lives(events["ev_avc"], events["ev_syscall"])[0])
    instant = np.sort(
        events["ev_walk"]["seq"].sample(COUNTED_LOOPS, with_replacement=True, seed=3).to_numpy()
    )
    tree = np.zeros(COUNTED_LOOPS, np.int64)
    first, last = np.zeros(COUNTED_LOOPS, np.uint64), np.full(COUNTED_LOOPS, np.iinfo(np.uint64).max)
    begin = time.process_time()
    counted_all = trees.overlapping(tree, instant, first, last)
    counted = (time.process_time() - begin) / COUNTED_LOOPS
    assert (counted_all == NODES).all()

    begin = time.process_time()
    loop = replay_exact(events, ("full",)).loop
    replayed = (time.process_time() - begin) / len(loop)
    assert loop.select((pl.col("iterations") == NODES).all()).item()
    print(f"\nfull, {NODES:,} VMAs on the tree, one loop:")
    print(f"  compiled walk of the linked tree {1e6 * walked:10.2f} us")
    print(
        f"  counted                          {1e6 * counted:10.2f} us, {walked / counted:6.0f} times faster"
    )
    print(
        f"  the whole replay, state included {1e6 * replayed:10.2f} us, {walked / replayed:6.0f} times faster"
    )


def main() -> None:
    """Three sizes, then the compiled walk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=LIFETIMES)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one)
        return
    print(f"{'lives':>10} {'loop rows':>11} {'cpu_s':>8} {'wall_s':>8} {'peak_GiB':>9} {'ns/(n log2 n)':>14}")
    for part in (16, 4, 1):
        size = str(arguments.largest // part)
        subprocess.run([sys.executable, "-m", "tests.bench_scale", "--one", size], check=True)
    against_the_walk()


if __name__ == "__main__":
    main()
