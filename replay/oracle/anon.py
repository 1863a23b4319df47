"""The slow twin of ``walks.anon``: one walk at a time, over every interval that the events tell.

Names as in mm/rmap.c rmap_walk_anon(). Shares no code with the columns.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from replay.oracle.pages import Spaces
from replay.oracle.state import AFTER, BEFORE, PAGE_SIZE
from replay.oracle.whole import read, tree_ages, vma_versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from replay.oracle.state import Interval, Row

    Rows: TypeAlias = list[dict[str, Any]]
    Events: TypeAlias = list[tuple[str, Row]]


def anon_walks(events: Mapping[str, pa.Table | Rows]) -> Rows:
    """``walk_id``, ``relatives``, ``mapping``, ``iterations`` and its bounds of every whole walk.

    Args:
        events: The ``ev_*`` tables by name, as tables or as lists of rows; none were lost.
    """
    state, ordered = read(events)
    causes = {row["vma_id"]: row["cause_event"] for row in vma_versions(state.intervals)}
    begun = _begun(state.intervals, causes)
    restored = any(name == "ev_migration_pte" and not row["is_set"] for name, row in ordered)
    written, own = _written(Spaces(state.intervals, state.items, ordered), ordered), _own(state.intervals)
    rows = []
    for walk_id, (entry, exit_, ptes) in enumerate(_walks(ordered)):
        sets = [row["seq"] for row in ptes if row["is_set"]]
        pages = _folio_nr_pages(entry)
        mapping = None
        if pages == 1 and entry["rmap_one"] == "remove_migration_pte":
            mapping = len(ptes) - len(sets) if restored else None
        elif pages == 1 and entry["rmap_one"] is not None:
            mapping = entry["mapcount"]
        tree = [each for each in state.intervals if each.anon_vma == entry["anon_vma"]]
        relatives = _relatives(tree, entry, pages, exit_, ptes[0]["seq"] if ptes else None)
        whole = [known for since, known in begun[entry["anon_vma"]] if since <= entry["seq"]]
        if not whole or not whole[-1] or (relatives or 0) < (mapping or 0):
            relatives = None
        least = None if relatives is None else _least(entry, relatives, mapping, len(sets))
        most = relatives
        if relatives is not None and mapping and mapping == len(sets) < relatives:
            spared = _places(tree, entry, sets[0], written, own)
            if entry["rmap_one"] == "try_to_migrate_one" and len(spared) >= mapping:
                least, most = spared[mapping - 1], spared[-1]
                if entry["try_lock"] is not False:
                    least = 0
        rows.append(
            {
                "walk_id": walk_id,
                "relatives": relatives,
                "mapping": mapping,
                "iterations": least if least == most else None,
                "iterations_least": least,
                "iterations_most": most,
            }
        )
    return rows


def _written(spaces: Spaces, ordered: Events) -> Mapping[tuple[int, int], list[int]]:
    """Places of write faults by mm and page."""
    written: dict[tuple[int, int], list[int]] = defaultdict(list)
    for name, row in ordered:
        if name == "ev_fault" and row["error_code"] & 2:
            mm = spaces.mm_of(row["pid"], row["seq"])
            if mm is not None:
                written[mm, row["address"] // PAGE_SIZE * PAGE_SIZE].append(row["seq"])
    return written


def _own(intervals: list[Interval]) -> Mapping[int | None, int]:
    """The anon_vma that a fork made for a VMA, by vma_id: nothing was on its tree before."""
    age = tree_ages(intervals)
    own = {}
    for each in intervals:
        same = [other for other in intervals if other.vma_id == each.vma_id]
        youngest = max((age[other], other.anon_vma) for other in same)
        if (age[each], each.anon_vma) == youngest and not any(
            (age[other], other.anon_vma) == youngest and other.born < each.born for other in intervals
        ):
            own[each.vma_id] = each.anon_vma
    return own


def _places(
    tree: list[Interval],
    entry: Row,
    now: int,
    written: Mapping[tuple[int, int], list[int]],
    own: Mapping[int | None, int],
) -> list[int]:
    """Places, in the order of the tree, of the relatives that may map the folio of one page."""
    index: int = entry["index"]
    met = [
        each
        for each in tree
        if each.first <= index <= each.last and (each.born_seq or BEFORE) <= now < (each.died_seq or AFTER)
    ]
    places = []
    for place, each in enumerate(sorted(met, key=lambda each: (each.first, each.born)), 1):
        page = each.vm_start + (index - each.first) * PAGE_SIZE
        born = each.born_seq or BEFORE
        copied = any(born < seq < entry["seq"] for seq in written.get((each.mm, page), ()))
        if not copied or own.get(each.vma_id, entry["anon_vma"]) == entry["anon_vma"]:
            places.append(place)
    return places


def _walks(ordered: Events) -> list[tuple[Row, int, list[Row]]]:
    """Entry, place of the return, and page-table events of each walk, in order of entry."""
    walking: dict[int, tuple[Row, list[Row]]] = {}
    done = []
    for name, row in ordered:
        if name == "ev_migration_pte" and row["pid"] in walking:
            walking[row["pid"]][1].append(row)
        elif name == "ev_anon_walk":
            entry = walking.pop(row["pid"], None)
            if not row["is_return"]:
                walking[row["pid"]] = row, []
            elif entry is not None:
                done.append((entry[0], row["seq"], entry[1]))
    return sorted(done, key=lambda walk: walk[0]["seq"])


def _folio_nr_pages(entry: Row) -> int | None:
    if entry["flags"] is None:
        return None
    if not entry["flags"] & 0x40:
        return 1
    if entry["flags_1"] is None or entry["flags_1"] % 256 > 30:
        return None
    return int(2 ** (entry["flags_1"] % 256))


def _relatives(
    tree: list[Interval], entry: Row, pages: int | None, leave: int, hit: int | None
) -> int | None:
    """The iterations of the loop, if it runs to its end."""
    if pages is None or entry["index"] is None or not all(each.placed for each in tree):
        return None
    first: int = entry["index"]
    last = first + pages - 1
    looked_up = [each for each in tree if each.first <= last and each.last >= first]
    changes = [seq for each in looked_up for seq in (each.born_seq, each.died_seq) if seq is not None]
    if hit is None and any(entry["seq"] < seq <= leave for seq in changes):
        return None
    now = entry["seq"] if hit is None else hit
    found: int = sum((each.born_seq or BEFORE) <= now < (each.died_seq or AFTER) for each in looked_up)
    return found


def _begun(
    intervals: list[Interval], causes: Mapping[int | None, str | None]
) -> Mapping[int, list[tuple[int, bool]]]:
    """By anon_vma its lives: since when, and whether the capture shows all that it ever held."""
    copying = ("fork", "vfork", "clone", "clone3")
    young: set[Interval] = set()  # of address spaces that began in the capture
    of_mm: dict[int, list[Interval]] = defaultdict(list)
    trees: dict[int | None, set[tuple[int, int]]] = defaultdict(set)
    age = tree_ages(intervals)
    for each in intervals:
        if each.mm is not None:
            of_mm[each.mm].append(each)
        trees[each.vma_id].add((age[each], each.anon_vma))
    for lives in of_mm.values():
        until, is_young = None, False
        for each in sorted(lives, key=lambda each: (each.born_seq or BEFORE, each.died)):
            born = each.born_seq or BEFORE
            if until is None or born > until:
                cause = causes.get(each.vma_id)
                is_young = each.born_seq is not None and cause in ("execve", "execveat", *copying)
            until = each.died if until is None else max(until, each.died)
            if is_young:
                young.add(each)
    first: dict[tuple[int, int], Interval] = {}
    for each in intervals:  # in order of birth
        first.setdefault((age[each], each.anon_vma), each)

    def known(tree: tuple[int, int], asked: frozenset[tuple[int, int]] = frozenset()) -> bool:
        each = first[tree]
        if each.born_seq is None or each not in young or tree in asked:
            return False
        others = trees[each.vma_id] - {tree}
        if causes.get(each.vma_id) not in copying:
            return True
        return bool(others) and all(known(other, asked | {tree}) for other in others)

    begun: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for since, anon_vma in first:
        begun[anon_vma].append((since, known((since, anon_vma))))
    return begun


def _least(entry: Row, relatives: int, mapping: int | None, sets: int) -> int:
    """How many relatives the walk visits at least."""
    caller, mapped = entry["rmap_one"], mapping is not None and mapping > 0
    if caller == "remove_migration_pte":
        return relatives
    if caller in ("damon_folio_mkold_one", "page_idle_clear_pte_refs_one") and mapped:
        return relatives
    if entry["try_lock"] is False:
        return min(relatives, max(sets, 1 if mapped else 0))
    return 0
