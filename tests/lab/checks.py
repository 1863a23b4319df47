"""What is wrong with what a guest wrote: against the kernel's own counts, and against the host's replay."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from captures import open_capture
from captures.canonical import canonical_events
from captures.maps import known_maps
from replay import analyze
from replay.testbench.record import durations
from reports.text import render_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

ENDED = {"TERM": "130", "INT": "130", "KILL": "137"}
"""Status with which a signal ends ``replay record``."""

MISSES = {"split": ["vm_pgoff"], "mremap": ["addr", "vm_pgoff"]}
"""Strategies that miss mappings in a scenario whatever the kernel is."""


def faults(
    out: Path, runs: Mapping[str, str], signals: Sequence[str], pages: int, nodes: int = 2
) -> Iterator[str]:
    """What is wrong.

    Args:
        out: Folder that the guest wrote.
        runs: Scenario, and the way in which it was recorded.
        signals: What ``replay record`` was ended by, one after the other.
        pages: Pages of each scenario.
        nodes: NUMA nodes of the guest; with one, DAMON looks at pages and nothing migrates.
    """
    for name in (*runs, *signals):
        if not (out / f"{name}.after").exists():
            yield f"{name}: the guest did not come to its end"
            return
        left = (out / f"{name}.after").read_text()
        if left != (out / "before").read_text():
            yield f"{name}: left behind\n{left}instead of\n{(out / 'before').read_text()}"
    for name in (*runs, *signals):
        status, wanted = (out / f"{name}.status").read_text().strip(), ENDED.get(name, "0")
        if status != wanted:
            yield f"{name}: status {status}, not {wanted}:\n{(out / f'{name}.stderr').read_text()}"
        elif name in runs:
            if runs[name] != "bench":
                yield from _of_probes((out / f"{name}.probes").read_text(), name, runs[name])
            yield from _of_capture(out, name, runs[name], pages, nodes)


def _of_probes(text: str, scenario: str, way: str) -> Iterator[str]:
    """What is wrong with dynamic_events as it was while the scenario ran."""
    ours = [line for line in text.splitlines() if "ksmprobe/" in line or "ksmtruth/" in line]
    wanted = {"f"} if way == "fprobes" else {"p", "r"}
    if {line[0] for line in ours} != wanted:
        yield f"{scenario}: recorded by {way}, but the probes were\n{text}"
    if way in ("numbers", "btf") and any("->" in line for line in ours):
        yield f"{scenario}: recorded by {way}, but arguments went by name\n{text}"


def _of_capture(out: Path, scenario: str, way: str, pages: int, nodes: int) -> Iterator[str]:
    with chdir(out):  # the report names the capture as it was given
        tables = analyze(Path(f"{scenario}.dat")).tables
    if way == "bench":
        here, there = f"{durations(tables)}\n{render_text(tables)}", (out / f"{scenario}.txt").read_text()
        if here != there:
            yield f"{scenario}: the guest printed\n{there}but the same capture gives\n{here}"
    if way == "anon":
        yield from _of_anon(tables, scenario)
        return
    if way != "perf":  # which takes such maps as its own records
        yield from _of_maps(out, scenario)
    yield from differences(tables, scenario, way, pages, nodes)


def _of_anon(tables: Mapping[str, pa.Table], scenario: str) -> Iterator[str]:
    """What is wrong with walks over ordinary pages: of the scenario's own family all has to be known."""
    if "anon_walk" not in tables:
        yield f"{scenario}: no walk over an ordinary page"
        return
    walks = pl.DataFrame(tables["anon_walk"]).filter(pl.col("caller") == "remove_migration_pte")
    counted = pl.col("observed_iterations")
    known = walks.filter(pl.col("relatives") > 1)
    print(f"{scenario} (anon): {len(walks)} restoring walks, {len(known)} of a family", flush=True)
    if known.is_empty() or known.filter(pl.col("mapping") < pl.col("relatives")).is_empty():
        yield f"{scenario}: no walk over pages that some relatives have copied"
    summed = tables["anon_summary"].to_pylist()
    differ = sum(row["compared"] + row["bounded"] - row["agreeing"] - row["within"] for row in summed)
    unlike = known.filter(counted.ne_missing(pl.col("relatives")))
    if differ or len(unlike):
        yield f"{scenario}: {differ} walks differ from the kernel's counts\n{unlike}"


def _of_maps(out: Path, scenario: str) -> Iterator[str]:
    """Whether the capture holds the maps of the process that is older than it, as the guest saw them."""
    rows = [line.split() for line in (out / "older").read_text().splitlines()]
    wanted = [(int(pid), *(int(end, 16) for end in span.split("-"))) for pid, span, *_ in rows]
    with open_capture(out / f"{scenario}.dat") as capture:
        maps = pl.DataFrame(known_maps(capture, canonical_events(capture)["ev_marker"], None))
    told = maps.filter(pl.col("pid") == wanted[0][0]).select("pid", "vm_start", "vm_end").rows()
    if told != wanted:
        yield f"{scenario}: the maps of an older process are {told}, not {wanted}"


def _differing(observed: pl.DataFrame, replayed: pl.DataFrame) -> pl.DataFrame:
    """Loops that are not alike, or only on one side."""
    loops = [one.with_columns(loop=pl.int_range(pl.len()).over("walk_id")) for one in (observed, replayed)]
    both = loops[0].join(loops[1], on=["walk_id", "loop"], how="full")
    counts = ("walk_id", "loop", "iterations", "rmap_one_calls")
    unlike = [pl.col(each).ne_missing(pl.col(f"{each}_right")) for each in counts]
    return both.filter(pl.any_horizontal(unlike)).select(*counts, *(f"{each}_right" for each in counts))


def _assumed(quality: pa.Table) -> int:
    """Loops whose instant the report calls assumed: another task changed the tree while DAMON walked it."""
    rows = [row for row in quality.to_pylist() if row["kind"] == "assumed_instant"]
    return sum(row["count"] for row in rows)


def differences(
    tables: Mapping[str, pa.Table], scenario: str, way: str, pages: int, nodes: int = 2
) -> Iterator[str]:
    """Where the replay of a capture differs from what its kernel counted."""
    frame = {name: pl.DataFrame(pl.from_arrow(table)) for name, table in tables.items()}
    # What the kernel looks up: up to 7.2 the whole tree; from 7.3 on, with anon_pgoff, one page offset.
    own = {"vm_pgoff": "full", "anon_pgoff": "linear"}[frame["capture"]["page_offset_rule"][0]]
    walks = frame["walk"].filter(pl.col("strategy") == own)
    summary = {row["strategy"]: row for row in frame["summary"].to_dicts()}
    observed = frame["loop"].filter(pl.col("strategy") == "observed")
    replayed = frame["loop"].filter(pl.col("strategy") == own)
    print(f"{scenario} ({way}): {len(walks)} walks, {len(observed)} loops; longest:", end=" ")
    print(", ".join(f"{name} {row['iterations_max']}" for name, row in summary.items()), end="; missed: ")
    print(", ".join(f"{name} {row['missed']}" for name, row in summary.items()), flush=True)
    callers = set(walks["caller"])
    # perf keeps no kallsyms: where the probe gives an address only, who walks stays unknown.
    wanted = {"try_to_migrate_one", "remove_migration_pte"} if nodes > 1 else {"damon_folio_mkold_one"}
    if not callers >= wanted and callers != {None}:
        yield f"{scenario}: not among the walks: {wanted}; they are {callers}"
    if not len(walks) or not len(observed):
        yield f"{scenario}: {len(walks)} walks, {len(observed)} loops that the kernel counted"
    differ, assumed = _differing(observed, replayed), _assumed(tables["quality"])
    print(f"  {len(differ)} loops differ from the kernel's counts; assumed instants: {assumed}", flush=True)
    if len(differ) > assumed:
        yield f"{scenario}: {len(differ)} loops differ from the kernel's counts (_right: {own})\n{differ}"
    if scenario == "split" and summary["full"]["iterations_max"] != pages:
        yield f"{scenario}: full makes {summary['full']['iterations_max']} iterations, not {pages}"
    for strategy in MISSES.get(scenario, []):
        if not summary[strategy]["missed"]:
            yield f"{scenario}: {strategy} misses nothing"
    for strategy in ("full", "linear"):
        if summary[strategy]["missed"] != 0:
            yield f"{scenario}: {strategy} misses {summary[strategy]['missed']}"
