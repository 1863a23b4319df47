"""The oracle's split audit: the largest trees, their call sites and their neighbours, one change at a time.

Slow and obvious on purpose, and shares no code with the columns that it checks. Trees are numbered, and have
roots, as ``families`` says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Row: TypeAlias = dict[str, Any]
    Rows: TypeAlias = list[Row]
    Words = Callable[..., str | None]

_TREES: Final = 16
_INSTANTS: Final = 200
_PAGE: Final = 4096
_GUARD: Final = 1 << 61
"""VM_MAYBE_GUARD as the model has it: a difference in it keeps nothing apart."""


class Site(NamedTuple):
    """A call site, in the order of the columns."""

    cause_event: str | None
    arguments: str | None
    pid: int | None
    comm: str | None
    stack: str | None


@dataclass
class Tree:
    """One tree: how many VMAs it had before the capture, and the most at once with their places and time."""

    number: int
    lives: Rows
    before: int = 0
    peak: int = 0
    top: int = 0
    peak_seq: int = -1
    peak_ts_ns: int | None = None
    changes: list[tuple[int, int, int]] = field(default_factory=list)
    """Place, time, +1 or -1; in order of place."""

    def count(self) -> Tree:
        """Go through the changes; those of one place count together."""
        self.before = sum(life["born_seq"] is None for life in self.lives)
        for end, added in (("born", 1), ("died", -1)):
            self.changes += [
                (life[f"{end}_seq"], life[f"{end}_ts_ns"], added)
                for life in self.lives
                if life[f"{end}_seq"] is not None
            ]
        self.changes.sort(key=itemgetter(0))
        alive = 0
        for place, (seq, _, added) in enumerate(self.changes):
            alive += added
            if place + 1 < len(self.changes) and self.changes[place + 1][0] == seq:
                continue
            if alive > self.top:
                self.peak_ts_ns = next(at for of, at, _ in self.changes if of == seq)
            if alive >= self.top > 0 or alive > self.top:
                self.top, self.peak_seq = alive, seq
        self.peak = self.before + self.top
        return self

    def at_peak(self) -> Rows:
        """The lives at the peak."""
        return [life for life in self.lives if life["born"] <= self.peak_seq < life["died"]]


class Sites:
    """Tells the call site of what happened at a place."""

    def __init__(self, events: Mapping[str, Rows], comms: Mapping[int, str], words: Words) -> None:
        """``words``: takes the name of a call and its six arguments, gives these in words."""
        self._events, self._comms, self._words = events, comms, words

    def of(self, seq: int) -> tuple[Site, int]:
        """The call site, and the place of its call."""
        told = [
            row
            for name in ("ev_avc", "ev_syscall", "ev_task", "ev_fault")
            for row in self._events[name]
            if row["seq"] == seq
        ]
        if not told:
            return Site(None, None, None, None, None), seq
        pid = told[-1]["pid"]
        calls = [row for row in self._events["ev_syscall"] if row["pid"] == pid and row["seq"] <= seq]
        faults = [row for row in self._events["ev_fault"] if row["pid"] == pid and row["seq"] <= seq]
        cause, arguments, call, entry = None, None, seq, None
        if calls and (not calls[-1]["is_exit"] or calls[-1]["seq"] == seq):
            cause = calls[-1]["name"]
            entry = self._entry(calls)
            values = [None if entry is None else entry[f"arg{number}"] for number in range(6)]
            arguments = self._words(cause, *values)
            call = calls[-1]["seq"] if entry is None else entry["seq"]
        elif calls:
            cause = "page_fault"
            if faults and faults[-1]["seq"] > calls[-1]["seq"]:
                call = faults[-1]["seq"]
        is_replaced = cause is not None and cause.startswith("execve") and entry is None
        stack = None if is_replaced else self._stack(pid, call)
        return Site(cause, arguments, pid, self._comm(pid, seq), stack), call

    @staticmethod
    def _entry(calls: Rows) -> Row | None:
        """The entry of the call that the last row belongs to."""
        if not calls[-1]["is_exit"]:
            return calls[-1]
        before = calls[-2] if len(calls) > 1 else None
        return before if before and before["name"] == calls[-1]["name"] and not before["is_exit"] else None

    def _stack(self, pid: int, call: int) -> str | None:
        """The first stack that the task tells in what it does from ``call`` on."""
        later = (
            row
            for name in ("ev_stack", "ev_syscall", "ev_fault")
            for row in self._events[name]
            if row["pid"] == pid and row["seq"] > call
        )
        for row in sorted(later, key=itemgetter("seq")):
            if row.get("frames") is not None:
                return str(row["frames"])
            if "frames" not in row and row.get("is_user", True):
                return None
        return None

    def _comm(self, pid: int, seq: int) -> str | None:
        """The name at the exit that ended the task; else the last of its id; else that of its begin."""
        facts = [
            row
            for row in self._events["ev_task"]
            if pid == (row["child_pid"] if row["kind"] in ("newtask", "fork") else row["pid"])
            and row["kind"] != "free"
        ]
        after = [row for row in facts if row["seq"] >= seq]
        begun = [row for row in facts if row["seq"] <= seq and row["kind"] != "exit"]
        names = [after[0]["comm"]] if after and after[0]["kind"] == "exit" else []
        if all(row["kind"] == "exit" for row in after):
            names.append(self._comms.get(pid))
        names += [row["comm"] for row in begun[-1:]]
        return next((name for name in names if name is not None), None)


def audit(
    lives: Rows,
    families: Rows,
    vma: Rows,
    events: Mapping[str, Rows],
    comms: Mapping[int, str],
    words: Words,
    most_sites: int = 100,
) -> dict[str, Rows]:
    """Tables ``tree``, ``split``, ``population``, and ``refusal`` of the neighbours.

    Args:
        lives: ``families.one_by_one``.
        families: ``families.roots``.
        vma: Table ``vma``.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.
        words: Takes the name of a call and its six arguments, gives these in words.
        most_sites: Call sites of a tree that have a row of their own.
    """
    by_number: dict[int, Rows] = {}
    for life in lives:
        by_number.setdefault(life["number"], []).append(life)
    trees = [Tree(number, own).count() for number, own in sorted(by_number.items())]
    trees = sorted((tree for tree in trees if tree.peak > 1), key=lambda tree: -tree.peak)[:_TREES]
    roots = {row["number"]: row["root"] for row in families}
    sites = Sites(events, comms, words)
    tables: dict[str, Rows] = {"tree": [], "split": [], "population": [], "refusal": []}
    for tree_id, tree in enumerate(trees):
        met = {seq: sites.of(seq) for seq, _, _ in tree.changes}
        tables["tree"].append({"tree_id": tree_id, **_tree(tree, roots.get(tree.number))})
        tables["split"] += [{"tree_id": tree_id, **row} for row in _split(tree, met, most_sites)]
        tables["population"] += [{"tree_id": tree_id, **row} for row in _population(tree, met)]
        tables["refusal"] += [{"tree_id": tree_id, **row} for row in _neighbours(tree, met, vma, events)]
    return tables


def _tree(tree: Tree, root: int | None) -> Row:
    born = [life["born_ts_ns"] for life in tree.lives]
    inserted = sum(added > 0 for _, _, added in tree.changes)
    removed = len(tree.changes) - inserted
    return {
        "anon_vma": tree.lives[0]["anon_vma"],
        "root": root,
        "born_ts_ns": None if tree.before else min(born),
        "before": tree.before,
        "inserted": inserted,
        "removed": removed,
        "peak": tree.peak,
        "peak_ts_ns": tree.peak_ts_ns,
        "mms": len({life["mm"] for life in tree.at_peak()} - {None}),
        "at_end": tree.before + inserted - removed,
        "evidence": tree.lives[0]["evidence"],
    }


def _split(tree: Tree, met: Mapping[int, tuple[Site, int]], most: int) -> Rows:
    """One row a call site, what added most first; the small ones together."""
    rows: dict[Site, Row] = {}
    by_call: dict[tuple[Site, int], int] = {}
    for seq, ts_ns, added in tree.changes:
        site, call = met[seq]
        empty = dict.fromkeys(("inserted", "removed", "vmas", "vmas_to_peak"), 0)
        row = rows.setdefault(site, {**site._asdict(), **empty, "first_ts_ns": ts_ns, "last_ts_ns": ts_ns})
        row["inserted" if added > 0 else "removed"] += 1
        row["vmas"] += added
        row["vmas_to_peak"] += added if seq <= tree.peak_seq else 0
        row["first_ts_ns"], row["last_ts_ns"] = (
            min(row["first_ts_ns"], ts_ns),
            max(row["last_ts_ns"], ts_ns),
        )
        by_call[site, call] = by_call.get((site, call), 0) + added
    for site, row in rows.items():
        own = [net for (of, _), net in by_call.items() if of == site]
        row |= {"sites": 1, "calls": len(own), "most_by_call": max(own)}
        row["evidence"] = tree.lives[0]["evidence"]
    ordered = sorted(
        rows.items(),
        key=lambda each: (
            -each[1]["vmas_to_peak"],
            -each[1]["inserted"],
            each[1]["first_ts_ns"],
            _nulls_first(each[0]),
        ),
    )
    shown = [row for _, row in ordered]
    if len(shown) <= most:
        return shown
    small = shown[most:]
    names = ("inserted", "removed", "vmas", "vmas_to_peak", "sites", "calls")
    together = {
        **dict.fromkeys(Site._fields),
        **{name: sum(row[name] for row in small) for name in names},
        "most_by_call": max(row["most_by_call"] for row in small),
        "first_ts_ns": min(row["first_ts_ns"] for row in small),
        "last_ts_ns": max(row["last_ts_ns"] for row in small),
        "evidence": small[0]["evidence"],
    }
    return [*shown[:most], together]


def _population(tree: Tree, met: Mapping[int, tuple[Site, int]]) -> Rows:
    """What the calls of each kind had added up to some instants, and to the peak."""
    places = sorted({seq for seq, _, _ in tree.changes})
    last = len(places) - 1
    picked = {int(number * (last / (_INSTANTS - 1))) for number in range(_INSTANTS - 1)} | {last}
    shown = {places[number] for number in picked if places} | ({tree.peak_seq} & set(places))
    rows = []
    for cause in {met[seq][0].cause_event for seq in places}:
        for place in sorted(shown):
            upto = [change for change in tree.changes if change[0] <= place]
            own = sum(added for seq, _, added in upto if met[seq][0].cause_event == cause)
            rows.append({"cause_event": cause, "ts_ns": upto[-1][1], "vmas": own})
    return sorted(rows, key=lambda row: (row["ts_ns"], *_nulls_first([row["cause_event"]])))


def _neighbours(
    tree: Tree, met: Mapping[int, tuple[Site, int]], vma: Rows, events: Mapping[str, Rows]
) -> Rows:
    """Why VMAs side by side in one address space are two, at the peak."""
    versions = {row["vma_id"]: row for row in vma}
    removals = {row["seq"]: row["vm_flags"] for row in events["ev_avc"] if not row["is_insert"]}
    placed = []
    for life in tree.at_peak():
        if life["mm"] is not None and life["vm_start"] is not None:
            version = versions.get(life["vma_id"], {})
            exact = life["evidence"] == "exact"
            flags = removals.get(life["died_seq"]) if exact else version.get("vm_flags")
            own = version.get("anon_vma") if life["born"] >= 0 else None
            placed.append({**life, "flags": flags, "own": own, "version": version})
    placed.sort(key=itemgetter("mm", "vm_start"))
    rows: dict[tuple[Any, ...], Row] = {}
    for left, right in pairwise(placed):
        if left["mm"] != right["mm"]:
            continue
        born = max(left["born"], right["born"])
        is_insertion = any(seq == born and added > 0 for seq, _, added in tree.changes)
        site = met[born][0] if is_insertion else Site(*(None,) * 5)
        ts_ns = next((at for seq, at, added in tree.changes if seq == born and added > 0), None)
        reasons, older, newer, differ = _apart(left, right)
        key = (*site, reasons, older, newer, right["evidence"])
        row = rows.setdefault(
            key,
            {
                "kind": "neighbours",
                **site._asdict(),
                "reasons": reasons,
                "by_6_12": older,
                "by_7_3": newer,
                "evidence": right["evidence"],
                "vm_flags": None,
                "merges": 0,
                "times": [],
            },
        )
        row["merges"] += 1
        row["vm_flags"] = row["vm_flags"] if differ is None else (row["vm_flags"] or 0) | differ
        row["times"] += [] if ts_ns is None else [ts_ns]
    for row in rows.values():
        times = row.pop("times")
        row["first_ts_ns"], row["last_ts_ns"] = min(times, default=None), max(times, default=None)
    return list(rows.values())


def _apart(left: Row, right: Row) -> tuple[str, bool | None, bool | None, int | None]:
    """Reasons in words, whether the rules of 6.12 and of 7.3 refuse (None: not known), flags that differ."""
    differ = None
    if left["flags"] is not None and right["flags"] is not None:
        differ = left["flags"] ^ right["flags"]
    if left["vm_end"] != right["vm_start"]:
        return "apart", True, True, differ
    pages = (left["vm_end"] - left["vm_start"]) // _PAGE

    def follows(name: str) -> bool | None:
        before, after = left["version"].get(name), right["version"].get(name)
        return None if before is None or after is None else after == before + pages

    both = ["flags"] if (differ or 0) & ~_GUARD else []
    known = left["own"] is not None and right["own"] is not None
    both += ["anon_vma"] if known and left["own"] != right["own"] else []
    goes_on, anon_goes_on = follows("vm_pgoff"), follows("anon_pgoff")
    older = both + (["pgoff"] if goes_on is False else [])
    newer = both + (["pgoff"] if goes_on is False or (goes_on and anon_goes_on is False) else [])
    every = older if len(older) >= len(newer) else newer
    return ", ".join(every), bool(older) or None, bool(newer) or None, differ


def _nulls_first(values: Iterable[Any]) -> list[tuple[bool, Any]]:
    return [(value is not None, "" if value is None else value) for value in values]
