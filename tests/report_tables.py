"""Result tables written by hand for the tests of the reports: a 6.12 kernel, one VMA split into 2,000.

What is in them, to be counted on fingers: 16 walks of 4 loops each; 8 walks before the split (every loop 1
iteration) and 8 after it (`full`: 2,000 iterations, 1,999 of them skipped by address). `vm_pgoff` finds all
32 mappings before the split, and after it only those 2 whose page is the first of the old VMA: found 34,
missed 30. Three tasks wait for the lock to change the tree, 35 ms in all, 25 ms of it behind walks; one waits
to walk.
"""

from typing import Any

import pyarrow as pa

from schemas import TABLES

PAGES = 2000
START_NS = 1_000_000_000_000
SPLIT_NS = START_NS + 2_000_000_000
END_NS = START_NS + 5_000_000_000
ANON_VMA, OTHER = 0xFFFF888100001000, 0xFFFF888100002000
MM = 0xFFFF888100AA0000
BASE = 0x7F0000000000
SHA256 = "ab" * 32
STRATEGIES = ("observed", "full", "addr", "vm_pgoff", "linear")
SUMMARY = {
    # strategy: time_ms_max, iterations_max, skip_addr, skip_mm, iterations_total, found, missed
    "observed": (34.6, 2000, 1999, 0, 64032, None, None),
    "full": (34.71, 2000, 1999, 0, 64032, 64, 0),
    "addr": (0.012, 1, 0, 0, 64, 64, 0),
    "vm_pgoff": (0.012, 1, 1, 0, 64, 34, 30),
    "linear": (0.012, 1, 0, 0, 64, 64, 0),
}


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the result table ``name``; missing keys are null."""
    return TABLES[name].check(pa.Table.from_pylist(rows, schema=TABLES[name].arrow))


def summary_row(strategy: str, *values: float | None, evidence: str = "replayed") -> dict[str, Any]:
    """One row of table ``summary`` from its seven numbers."""
    names = ("time_ms_max", "iterations_max", "skip_addr_out_of_range_max", "skip_mm_mismatch_max")
    row = dict(zip((*names, "iterations_total", "found", "missed"), values, strict=True))
    evidence = "observed" if strategy == "observed" else evidence
    return {"strategy": strategy, "evidence": evidence, "walks": 16, "loops": 64, **row}


def capture_row(**changed: Any) -> dict[str, Any]:
    """The row of table ``capture``."""
    return {
        "path": "split-6.12.dat",
        "format": "trace.dat v7",
        "size_bytes": 1_234_567,
        "sha256": SHA256,
        "kernel_release": "6.12.107+deb13-amd64",
        "arch": "x86_64",
        "hostname": "vm1",
        "clock": "mono",
        "cpus": 2,
        "first_ts_ns": START_NS,
        "last_ts_ns": END_NS,
        "events": 123_456,
        "events_decoded": 45_678,
        "events_lost": 0,
        "truncated": False,
        "tool": "trace-cmd 3.3.1",
        "replay_version": "0.1.0",
        "page_offset_rule": "vm_pgoff",
        "native_strategy": "full",
    } | changed


QUALITY = [
    {"kind": "censored_avc", "count": 3, "severity": "info", "effect": "Three intervals were there before."},
    {
        "kind": "lost_events",
        "cpu": 0,
        "start_ns": START_NS + 10,
        "end_ns": START_NS + 20,
        "count": 7,
        "severity": "warning",
        "effect": "Trees may lack changes.",
    },
    {
        "kind": "lost_events",
        "cpu": 1,
        "start_ns": START_NS + 30,
        "end_ns": START_NS + 50,
        "count": 5,
        "severity": "warning",
        "effect": "Trees may lack changes.",
    },
]


def _wait(at_ms: int, took_ms: int, pid: int, comm: str, doing: str, behind_ms: int) -> dict[str, Any]:
    """A wait to change the tree, from so many ms after the split on."""
    begin = SPLIT_NS + at_ms * 1_000_000
    return {
        "ts_ns": begin,
        "end_ns": begin + took_ms * 1_000_000,
        "cpu": 0,
        "pid": pid,
        "comm": comm,
        "is_write": True,
        "root": ANON_VMA,
        "doing": doing,
        "walk_id": 8 if behind_ms else None,
        "behind_walks_ns": behind_ms * 1_000_000,
    }


WAITS = [
    _wait(1005, 10, 7, "v-mprotect", "mprotect", 10),
    _wait(1010, 20, 7, "v-mprotect", "mprotect", 15),
    _wait(1100, 5, 8, "v-fault", "page_fault", 0),
    _wait(1200, 3, 123, "walker", "move_pages", 0) | {"is_write": False},
]


def sample_tables(
    *, comm: str = "ksmload", custom: tuple[str, ...] = (), capture: dict[str, Any] | None = None
) -> dict[str, pa.Table]:
    """All result tables of the made-up capture.

    Args:
        comm: Name of the walking task.
        custom: Names of further strategies; they behave as ``linear``.
        capture: Columns of table ``capture`` to change.
    """
    names = (*STRATEGIES, *custom)
    walks, loops, misses = [], [], []
    for walk_id in range(16):
        split = walk_id >= 8
        ts = (SPLIT_NS if split else START_NS) + 1_000_000_000 + (walk_id % 8) * 50_000_000
        for strategy in names:
            wide = strategy in ("observed", "full") and split
            iterations = PAGES if wide else 1
            lost = 0
            for item in range(4):
                page = 0 if walk_id in (8, 9) and item == 0 else 1 + 4 * walk_id + item
                missed = strategy == "vm_pgoff" and split and page != 0
                lost += missed
                loops.append(
                    {
                        "walk_id": walk_id,
                        "ts_ns": ts + item,
                        "rmap_item": 0xFFFF888100300000 + item,
                        "anon_vma": ANON_VMA,
                        "mm": MM,
                        "address": BASE + page * 4096,
                        "search_new_forks": 0,
                        "first_pgoff": {"full": 0, "vm_pgoff": 0}.get(strategy, page),
                        "last_pgoff": {"full": 2**64 - 1, "vm_pgoff": 0}.get(strategy, page),
                        "strategy": strategy,
                        "iterations": iterations,
                        "skip_addr_out_of_range": 1999 if wide else int(missed),
                        "skip_mm_mismatch": 0,
                        "rmap_one_calls": int(not missed),
                        "ended_early": False,
                        "predicted_ns": None if strategy == "observed" else 1000 + 4000 * iterations,
                    }
                )
                if missed:
                    misses.append(
                        {
                            "walk_id": walk_id,
                            "strategy": strategy,
                            "rmap_item": 0xFFFF888100300000 + item,
                            "mm": MM,
                            "address": BASE + page * 4096,
                            "vm_start": BASE + page * 4096,
                            "vm_end": BASE + (page + 1) * 4096,
                            "cause_event": "mprotect",
                            "cause_ts_ns": SPLIT_NS + page * 1000,
                            "cause_pid": 123,
                            "first_pgoff": BASE // 4096,
                            "last_pgoff": BASE // 4096,
                            "page_pgoff": BASE // 4096 + page,
                            "mapped_by": "migration_entry",
                            "cause_kind": "split",
                            "cause_arguments": f"{BASE + page * 4096:#x}, 4096, PROT_READ",
                            "cause_comm": "ksmload",
                        }
                    )
            walks.append(
                {
                    "walk_id": walk_id,
                    "ts_ns": ts,
                    "end_ns": ts + 34_600_000,
                    "cpu": 1,
                    "pid": 123,
                    "comm": comm,
                    "caller": "try_to_migrate_one",
                    "strategy": strategy,
                    "loops": 4,
                    "iterations_total": 4 * iterations,
                    "iterations_max": iterations,
                    "mappings_missed": None if strategy == "observed" else lost,
                    "observed_ns": 34_600_000 if split else 20_000,
                    "predicted_ns": None if strategy == "observed" else 34_710_000 if wide else 12_000,
                }
            )
    summary = [summary_row(name, *values) for name, values in SUMMARY.items()]
    summary += [summary_row(name, *SUMMARY["linear"]) for name in custom]
    rows = {
        "summary": summary,
        "walk": walks,
        "loop": loops,
        "miss": misses,
        "avc": _intervals(),
        "vma": _vmas(),
        "rmap_item": _items(),
        "wait": WAITS,
        "quality": QUALITY,
        "capture": [capture_row(**(capture or {}))],
    }
    return {name: table(name, rows.get(name, [])) for name in rows}


def _vmas() -> list[dict[str, Any]]:
    """Versions of the VMAs of the tree that is split: number 0 before, 1 + page after it, by mprotect."""
    rows = [{"vma_id": 0, "died_ts_ns": SPLIT_NS}]
    rows += [
        {"vma_id": 1 + page, "born_ts_ns": SPLIT_NS + page * 1000, "cause_event": "mprotect"}
        for page in range(PAGES)
    ]
    return [{"mm": MM, "evidence": "exact"} | row for row in rows]


def _items() -> list[dict[str, Any]]:
    """The pages that walks ask for, merged one after the other, half a second after the first event."""
    pages = {
        (item, 0 if walk in (8, 9) and item == 0 else 1 + 4 * walk + item)
        for walk in range(16)
        for item in range(4)
    }
    return [
        {
            "rmap_item": 0xFFFF888100300000 + item,
            "mm": MM,
            "address": BASE + page * 4096,
            "anon_vma": ANON_VMA,
            "vm_pgoff": 0,
            "linear_page_index": page,
            "born_ts_ns": START_NS + 500_000_000 + page,
            "evidence": "exact",
        }
        for item, page in sorted(pages)
    ]


def _intervals() -> list[dict[str, Any]]:
    """One VMA from before the capture, split into 2,000; another anon_vma with 3, one of them removed."""

    def interval(
        number: int, tree: int, first: int, last: int, born: int | None, died: int | None
    ) -> dict[str, Any]:
        return {
            "avc": 0xFFFF888100400000 + number * 64,
            "vma_id": number if tree == ANON_VMA else None,
            "anon_vma": tree,
            "mm": MM,
            "first_pgoff": first,
            "last_pgoff": last,
            "born_ts_ns": born,
            "died_ts_ns": died,
            "born_seq": None if born is None else 2 * number + 1,
            "died_seq": None if died is None else 2 * number + 2,
            "evidence": "exact",
        }

    rows = [interval(0, ANON_VMA, 0, PAGES - 1, None, SPLIT_NS)]
    rows += [interval(1 + page, ANON_VMA, page, page, SPLIT_NS + page * 1000, None) for page in range(PAGES)]
    rows += [interval(3000 + page, OTHER, page, page, START_NS + 500, None) for page in range(2)]
    rows += [interval(3002, OTHER, 2, 2, START_NS + 500, START_NS + 900_000_000)]
    return rows
