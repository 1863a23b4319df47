"""A made-up capture state of any size, as event tables: many VMAs on few anon_vmas, many walks over them."""

from __future__ import annotations

import numpy as np
import polars as pl

from tests.model_machine import empty_events

VMAS_PER_TREE = 20_000
ITEMS_PER_NODE = 250
PAGE = 4096
STABLE = 1 << 45


def scale_events(lifetimes: int, loops: int) -> dict[str, pl.DataFrame]:
    """Event tables of a capture with that many lives of intervals, and inner loops under each strategy.

    Every VMA has one page. All are put on their trees; then, while the walks run, each leaves its tree and
    comes back, as at a split beside it. Walks restore migration entries, so none ends early: they make two
    passes over the ``ITEMS_PER_NODE`` rmap_items of their node, whose pages lie anywhere.

    Args:
        lifetimes: Lives of intervals; half of them end.
        loops: Inner loops of all walks together.
    """
    random = np.random.default_rng(1)
    vmas = lifetimes // 2
    walks = max(loops // (2 * ITEMS_PER_NODE), 1)
    nodes = max(walks // 10, 1)
    vma = np.arange(vmas)
    tree, page = vma // VMAS_PER_TREE, vma % VMAS_PER_TREE
    moved = random.permutation(vmas)
    item = np.arange(nodes * ITEMS_PER_NODE)
    of_item = random.integers(0, vmas, len(item))

    # Places: insertions, then appends, then walks (entry, return) among removals and insertions.
    appended = vmas + 2 * item + 1
    begin = vmas + 2 * len(item) + 1
    is_walk = np.zeros(vmas + walks, np.bool_)
    is_walk[random.permutation(len(is_walk))[:walks]] = True
    places = begin + 2 * np.arange(len(is_walk))
    change, walk = places[~is_walk], places[is_walk]

    def avc(seq: np.ndarray, which: np.ndarray, *, is_insert: bool) -> pl.DataFrame:
        start = (page[which] + 0x7F00_0000_0).astype(np.uint64)
        return pl.DataFrame(
            {
                "seq": seq,
                "is_insert": np.full(len(seq), is_insert),
                "avc": which + (1 << 40),
                "anon_vma": tree[which] + (1 << 41),
                "vma": which + (1 << 42),
                "mm": tree[which] + (1 << 43),
                "vm_start": start * PAGE,
                "vm_end": (start + 1) * PAGE,
                "vm_pgoff": start,
            }
        )

    trees = pl.concat(
        [
            avc(vma, vma, is_insert=True),
            avc(change, moved[: len(change)], is_insert=False),
            avc(change + 1, moved[: len(change)], is_insert=True),
        ]
    ).sort("seq")
    address = (page[of_item] + 0x7F00_0000_0) * PAGE
    append = pl.DataFrame(
        {
            "seq": appended,
            "rmap_item": item + (1 << 44),
            "address": address,
            "mm": tree[of_item] + (1 << 43),
            "anon_vma": tree[of_item] + (1 << 41),
            "stable_node": STABLE + item // ITEMS_PER_NODE * 64,
        }
    )
    entry = pl.DataFrame(
        {
            "seq": walk,
            "is_return": np.zeros(len(walk), np.bool_),
            "stable_node": STABLE + random.integers(0, nodes, len(walk)) * 64,
            "rmap_one": ["remove_migration_pte"] * len(walk),
        }
    )
    back = pl.DataFrame({"seq": walk + 1, "is_return": np.ones(len(walk), np.bool_)})
    tables = {"ev_avc": trees, "ev_append": append, "ev_walk": pl.concat([entry, back], how="diagonal")}
    whole = empty_events()
    for name, frame in tables.items():
        schema = whole[name].schema
        common = {"ts_ns": pl.col("seq") * 1000, "cpu": pl.lit(0), "pid": pl.lit(7)}
        full = frame.with_columns(**common)
        missing = [pl.lit(None).alias(column) for column in schema if column not in full.columns]
        whole[name] = full.with_columns(missing).select(pl.col(c).cast(t) for c, t in schema.items())
    return whole
