"""Tables of rmap walks over ordinary anonymous folios, those that are not KSM's."""

from __future__ import annotations

from typing import Final

from schemas.events import IS_RETURN, NOT_RECORDED, event_table
from schemas.kinds import count, flag, int32, int64, nanoseconds, pgoff, pointer, text, uint64
from schemas.table import Table

NO_DURATIONS: Final = "the clock counts no ns"

_WALK: Final = "mm/rmap.c rmap_walk_anon()"
_REPLAY: Final = "replay: anon_walks"
_ON_ENTRY: Final = "a return, or the event of this capture has no such field"

EV_ANON_WALK: Final = event_table(
    "ev_anon_walk",
    "Entry into or return from one rmap walk over an anonymous folio that is not KSM's. A return belongs to "
    "the last open entry of its thread.",
    flag("is_return", IS_RETURN, _WALK),
    pointer("folio", "The struct folio.", _WALK, null=_ON_ENTRY),
    pointer(
        "anon_vma",
        "folio->mapping without its two low bits: the anon_vma whose tree is walked.",
        _WALK,
        null=_ON_ENTRY,
    ),
    pgoff("index", "folio->index: page offset of its first page.", _WALK, null=_ON_ENTRY),
    uint64("flags", "folio->flags; 0x40 (PG_head): a large folio.", _WALK, null=_ON_ENTRY, unit="PG_* bits"),
    uint64(
        "flags_1",
        "folio->_flags_1; of a large folio, the low byte is its order (log2 of its pages).",
        _WALK,
        null=_ON_ENTRY,
    ),
    text("rmap_one", "rwc->rmap_one as a symbol without offset; says who walks.", _WALK, null=_ON_ENTRY),
    flag("try_lock", "rwc->try_lock: the walk gives up when the anon_vma is busy.", _WALK, null=_ON_ENTRY),
    int32(
        "mapcount",
        "folio->_mapcount + 1 at entry: of a folio of one page, the page table entries that map it.",
        _WALK,
        null=_ON_ENTRY,
        unit="count",
    ),
    text("comm", "Name of the task that walks.", "$comm of the probe", null=NOT_RECORDED),
)

ANON_WALK: Final = Table(
    name="anon_walk",
    version="1.1",
    doc="One rmap walk over an anonymous folio that is not KSM's. It asks the tree of the folio's anon_vma "
    "for the relatives (VMAs of this process, its forks and their forks) that have the folio's page offsets, "
    "whether or not they still map the folio.",
    columns=(
        int64("walk_id", "Number of the walk, in order of entry; not that of table walk.", _REPLAY),
        nanoseconds("ts_ns", "Entry, trace clock.", "ring buffer record"),
        nanoseconds("end_ns", "Return, trace clock.", "ring buffer record"),
        int32("cpu", "CPU at entry.", "ring buffer record"),
        int32("pid", "Thread that walks.", "common_pid"),
        text("comm", "Its name.", "replay: names", null="not known"),
        pointer("folio", "The struct folio.", _WALK, null=NOT_RECORDED),
        pointer("anon_vma", "Its anon_vma.", _WALK, null=NOT_RECORDED),
        pgoff("first_pgoff", "First page offset looked up, inclusive.", _WALK, null=NOT_RECORDED),
        pgoff("last_pgoff", "Last page offset looked up, inclusive.", _WALK, null=NOT_RECORDED),
        text("caller", "Name of rwc->rmap_one.", _WALK, null="not known"),
        count(
            "relatives",
            "VMAs on the tree that overlap the range: the iterations of a walk that nothing ends early. "
            "Replayed.",
            _REPLAY,
            null="not all of the tree is known (it is older than the capture, or events were lost), or it "
            "changed while the walk may have run",
        ),
        count(
            "mapping",
            "Relatives that map the folio: its mapcount at entry, or the page table entries that "
            "remove_migration_pte restored. Observed.",
            "folio->_mapcount; migrate:remove_migration_pte",
            null="a folio of several pages; or the caller or the count was not recorded",
        ),
        count(
            "iterations",
            "Relatives visited. Replayed.",
            _REPLAY,
            null="not known: where it lies is in the next two columns",
        ),
        count("iterations_least", "Relatives visited, at least. Replayed.", _REPLAY, null="as relatives"),
        count(
            "iterations_most",
            "Relatives visited, at most: a relative that wrote the page since it was forked does not map it. "
            "Replayed.",
            _REPLAY,
            null="as relatives",
        ),
        count(
            "observed_iterations",
            "Relatives visited as the kernel counted.",
            "ev_obs_first, ev_obs_next, ev_obs_one",
            null="the capture has not these counts",
        ),
        nanoseconds("observed_ns", "From entry to return.", "ring buffer record", null=NO_DURATIONS),
    ),
)

ANON_SUMMARY: Final = Table(
    name="anon_summary",
    version="1.1",
    doc="The walks of table anon_walk of one caller.",
    columns=(
        text("caller", "Name of rwc->rmap_one.", _WALK, null="not known"),
        count("walks", "Walks.", _REPLAY),
        count("relatives_max", "Most relatives of one walk.", _REPLAY, null="known of no walk"),
        count("known", "Walks of which both relatives and mapping are known.", _REPLAY),
        count("relatives_total", "Relatives of these.", _REPLAY),
        count("mapping_total", "Relatives of these that map the folio.", _REPLAY),
        count("replayed", "Walks whose iterations are known.", _REPLAY),
        count("iterations_total", "Iterations of these.", _REPLAY),
        count("compared", "Walks whose iterations are known, and that the kernel counted too.", _REPLAY),
        count("agreeing", "Of these, the ones of which the kernel counted that number.", _REPLAY),
        count("bounded", "Walks of which only bounds are known, and that the kernel counted too.", _REPLAY),
        count("within", "Of these, the ones of which its count is within the bounds.", _REPLAY),
        nanoseconds("longest_ns", "Longest walk.", "ring buffer record", null=NO_DURATIONS),
        nanoseconds("together_ns", "All walks together.", "ring buffer record", null=NO_DURATIONS),
    ),
)

TABLES: Final = (EV_ANON_WALK, ANON_WALK, ANON_SUMMARY)
