"""Snapshots of process maps for ``oracle.model``: the slow, obvious twin of ``model.told``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from replay.oracle.model_vma import Areas, Mm, Proposed
from replay.state import kernel as k

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

Event = dict[str, Any]
Row = tuple[int, str, Event]
TOP = (1 << 44) - 1


def snapshots(events: Mapping[str, pl.DataFrame]) -> tuple[list[Event], int]:
    """Each with ``seq``, ``ts_ns``, ``pid``, ``is_whole``, ``lines``; and how many are torn."""
    names = ("ev_syscall", "ev_task", "ev_fault", "ev_marker")
    rows = sorted((row["ts_ns"], row["seq"]) for name in names for row in events[name].to_dicts())
    calls = [(row["pid"], row["ts_ns"]) for row in events["ev_syscall"].to_dicts()]
    every = sorted(events["proc_map"].to_dicts(), key=lambda row: (row["snapshot"], row["vm_start"]))
    every = [row for row in every if row["vm_start"] >> k.PAGE_SHIFT <= TOP and not row["is_record"]]
    files = numbered_files(events)
    found, torn = [], 0
    for _, group in groupby(every, key=lambda row: row["snapshot"]):
        lines = [row | {"number": files[row["file"]], "is_new": False} for row in group]
        pid, begin, end, place = (lines[0][name] for name in ("pid", "begin_ns", "end_ns", "place"))
        if begin is not None and any(other == pid and begin <= ts <= end for other, ts in calls):
            torn += 1
            continue
        if place is None:
            place = max(((ts, seq) for ts, seq in rows if ts <= end), default=(0, -1))[1]
        ts_ns = end if end is not None else min((ts for ts, _ in rows), default=0)
        found.append(
            {"seq": place, "ts_ns": ts_ns, "pid": pid, "is_whole": lines[0]["is_whole"], "lines": lines}
        )
    return found, torn


def numbered_files(events: Mapping[str, pl.DataFrame]) -> dict[str | None, int]:
    """A number for each file, from 1; 0: no file."""
    files = sorted({row["file"] for row in events["proc_map"].to_dicts() if row["file"] is not None})
    return {None: 0, **{file: number for number, file in enumerate(files, 1)}}


def records(events: Mapping[str, pl.DataFrame], followed: set[str]) -> list[Event]:
    """The kernel's records that the model needs, each as a snapshot of one line."""
    steps = [
        *(
            (row["seq"], row, "" if row["is_exit"] else row["name"])
            for row in events["ev_syscall"].to_dicts()
        ),
        *((row["seq"], row, row["kind"]) for row in events["ev_task"].to_dicts() if row["kind"] != "free"),
    ]
    files, kept = numbered_files(events), []
    lines = [row for row in events["proc_map"].to_dicts() if row["is_record"]]
    for line in sorted(lines, key=lambda row: row["place"]):
        if line["vm_start"] >> k.PAGE_SHIFT > TOP:
            continue
        own = [each for each in steps if each[1]["pid"] == line["pid"]]
        before = max((each for each in own if each[0] <= line["place"]), default=None, key=lambda e: e[0])
        behind = min((each for each in own if each[0] >= line["place"]), default=None, key=lambda e: e[0])
        made = next((each for each in (behind, before) if each is not None and each[2] == "exec"), None)
        line |= {"number": files[line["file"]], "is_new": made is not None, "exec": made and made[0]}
        if made is not None and made is behind:
            line |= {"place": made[0], "end_ns": made[1]["ts_ns"]}
        elif before is not None and before[2] in followed:
            continue
        kept.append(line)
    found = []
    for number, line in enumerate(kept):
        same = [(at, each) for at, each in enumerate(kept) if line["is_new"] and each["is_new"]]
        same = [(at, each) for at, each in same if all(each[key] == line[key] for key in ("pid", "exec"))]
        stack = next((at for at, each in same if each["name"] == "[stack]"), 0)
        if line["is_new"] and number < stack:
            continue
        later = next((each["vm_start"] for at, each in same if at > number), 0)
        cut = later if line["vm_start"] < later < line["vm_end"] else line["vm_end"]
        told = {"seq": line["place"], "ts_ns": line["end_ns"], "pid": line["pid"], "is_whole": False}
        found.append(told | {"lines": [line | {"vm_end": cut}]})
    return found


def faults_of_execs(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Events without the faults inside of execve(); and its writes to the new program, where it is there."""
    kept, late, inside = [], [], dict[int, list[Event]]()
    for place, table, row in rows:
        if table == "ev_fault" and row["pid"] in inside:
            inside[row["pid"]].append(row)
            continue
        kept.append((place, table, row))
        if table == "ev_syscall":
            inside.pop(row["pid"], None)
            if row["name"] in ("execve", "execveat") and not row["is_exit"]:
                inside[row["pid"]] = []
        elif table == "ev_task" and row["kind"] == "exec":
            held = inside.pop(row["pid"], [])
            inside.pop(row["old_pid"], None)
            late += [
                (place, "ev_fault", each | {"seq": place, "ts_ns": row["ts_ns"]})
                for each in held
                if each["error_code"] & k.PF_WRITE
            ]
    return kept, late


def tell(areas: Areas, mm: Mm, line: Event) -> bool:
    """One VMA is there; returns whether the model had something else."""
    start, end = line["vm_start"] >> k.PAGE_SHIFT, line["vm_end"] >> k.PAGE_SHIFT
    flags = line["vm_flags"]
    if flags is None:
        prot = 3 if line["prot"] is None else line["prot"]
        flags = prot | k.VM_MAY
        if line["is_shared"]:
            flags |= k.VM_SHARED | k.VM_MAYSHARE
        elif prot & k.VM_WRITE:
            flags |= k.VM_ACCOUNT
        if line["name"] == "[stack]":
            flags |= k.VM_GROWSDOWN
    vma = mm.find(start)
    other = vma is not None and vma.start < end
    if vma is not None and other:
        if (
            vma.flags & flags & k.VM_GROWSDOWN
            and vma.start - vma.pgoff <= start < vma.start
            and end == vma.end
        ):
            areas.expand(vma, start)
            return False
        if (vma.start, vma.end) == (start, end) and not (vma.flags ^ flags) & k.VM_ACCESS_FLAGS:
            return False
        areas.munmap(mm, start, end)
    file = k.MAX_FD + 1 + line["number"] if line["number"] else 0
    pgoff = start if line["pgoff"] is None else line["pgoff"]
    anon_pgoff = start if file else pgoff
    new = areas.new_vma(mm, Proposed(start, end, flags, file, pgoff, anon_pgoff, None, None))
    follows = line["is_shared"] or line["is_new"] or (not file and line["pgoff"] is not None)
    new.told = (
        (k.TOLD_PGOFF if line["pgoff"] is None else 0)
        | (0 if follows else k.TOLD_ANON_PGOFF)
        | (k.TOLD_FLAGS if line["vm_flags"] is None else 0)
    )
    mm.add(new)
    if (line["is_faulted"] or line["name"] == "[stack]") and not line["is_shared"]:
        areas.anon_vma_prepare(new)
    return other


def gaps(lines: list[Event]) -> list[tuple[int, int]]:
    """Page ranges that no line has, before each line and behind the last; empty ones too."""
    ends = [0, *(line["vm_end"] >> k.PAGE_SHIFT for line in lines)]
    starts = [*(line["vm_start"] >> k.PAGE_SHIFT for line in lines), TOP]
    return list(zip(ends, starts, strict=True))
