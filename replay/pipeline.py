"""From a capture to its result tables: open, decode, rebuild and replay, sum up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from captures import open_capture
from captures.canonical import canonical_events
from captures.maps import known_maps, known_threads
from captures.matching import find_roles
from replay import __version__
from replay.evidence import check, rebuild
from replay.findings.causes import missed_because
from replay.findings.every_node import EVERY_NODE, every_node
from replay.findings.held_up import held_up
from replay.findings.merges import neighbours, tried
from replay.findings.node_tables import node_summary, node_walks
from replay.findings.segments import segments
from replay.findings.sharing import sharing
from replay.findings.splits import audit
from replay.findings.victims import lost, waits
from replay.fitness import fit_events, has_durations, refuse_unfit, without_durations
from replay.ksm.other_kernel import other_kernel
from replay.options import AnalyzeOptions
from replay.quality import limits
from replay.state.families import growth, one_by_one, roots
from replay.state.gaps import Gaps
from replay.state.names import with_names
from replay.summary import native_strategy, page_offset_rule, summarise, timed_strategy
from replay.walks import anon as anon_walks
from replay.walks.callers import named
from replay.walks.chosen import chosen
from replay.walks.observed import observed
from replay.walks.timing import fit_tables, fitted, predict_loops, predict_walks
from schemas import TABLES
from schemas.errors import MissingEventsError

if TYPE_CHECKING:
    import os

    from captures.info import Capture
    from replay.results.notebook import Figures

NEEDED: Final = {
    "ev_avc": "anon_vma_interval_tree_insert and _remove (7.3: anon_rmap_tree_*)",
    "ev_append": "stable_tree_append",
    "ev_walk": "rmap_walk_ksm and its return",
}
"""Event tables without which nothing is exact, and the functions to probe."""


@dataclass(frozen=True)
class Analysis:
    """Result of ``analyze``.

    Attributes:
        tables: ``capture``, ``quality``, ``summary``, ``walk``, ``loop``, ``miss``, ``wait``, ``lost``,
            ``tree``, ``split``, ``population``, ``refusal``, ``family``, ``family_growth``, ``rmap_item``,
            ``avc``, ``vma``: each as ``schemas.TABLES`` describes it.
    """

    tables: dict[str, pa.Table]

    @property
    def figures(self) -> Figures:
        """The figures of the report by name, each for a notebook to show or to save as a picture."""
        from replay.results.notebook import Figures

        return Figures(self.tables)

    def _repr_html_(self) -> str:
        """The verdict and the strategy table, for notebooks: a few kB, without scripts."""
        from reports.notebook import analysis_html

        return analysis_html(self.tables)


def analyze(path: str | os.PathLike[str], options: AnalyzeOptions | None = None) -> Analysis:
    """Replay every rmap walk of a capture under every strategy.

    Args:
        path: The capture.
        options: What is asked for; None: the defaults.

    Raises:
        UsageError: A strategy is not known.
        CaptureError: The capture cannot be read, or lacks the tree probes.
    """
    options = AnalyzeOptions() if options is None else options
    asked = chosen(options.strategies)
    check(options)
    with open_capture(path, options.ts2secs) as capture:
        probed = _has_probes(capture, options)
        tables = canonical_events(capture, bare=("ev_obs_next",))
        quality = capture.quality()
        told = pl.DataFrame(quality)
        refuse_unfit(told, capture.path)
        comms = capture.comms()
        info = capture.info
        exact_only = probed and options.evidence in (None, "exact") and options.kernel_rules is None
        before = {name: TABLES[name].empty() for name in ("proc_map", "proc_thread")}
        if not exact_only:
            beside = Path(options.maps) if options.maps else None
            before["proc_map"] = known_maps(capture, tables["ev_marker"], beside)
            before["proc_thread"] = known_threads(capture)
    events = {
        name: pl.DataFrame(pl.from_arrow(table)).with_columns(pl.col("seq").set_sorted())
        for name, table in tables.items()
    }
    del tables
    events = fit_events(events, told)
    events["ev_walk"] = named(with_names(events["ev_walk"], events, comms), events["ev_migration_pte"])
    gaps = Gaps.of(told, events)
    rebuilt = rebuild(
        events,
        options,
        probed=probed,
        release=info.kernel_release,
        gaps=gaps,
        before={name: pl.DataFrame(pl.from_arrow(table)) for name, table in before.items()},
    )
    exact, events = rebuilt.exact, dict(rebuilt.events)
    observed_loop, observed_walk = observed(events, exact.walks.drop_nulls("end_ns"), gaps)
    loop = _beside(observed_loop, exact.loop)
    native, rule = native_strategy(exact, observed_loop), page_offset_rule(events)
    lasted = held_up(events, exact.walks)
    captured = (
        _beside(observed_walk, exact.walk)
        .drop("held_up_ns")
        .join(lasted, on="walk_id", how="left", maintain_order="left")
    )
    if not has_durations(told):
        captured = without_durations(captured)
    whole = exact if rebuilt.stock is None else replace(exact, items=rebuilt.stock.whole)
    every = every_node(whole, events, asked) if options.walks == EVERY_NODE else None
    walks = [captured] if every is None else [captured, node_walks(every, asked)]
    limited = None
    if options.max_page_sharing is not None:
        limited = sharing(whole, events, asked, options.max_page_sharing)
        walks.append(limited)
    ran = timed_strategy(native, rule)
    fit, no_fit = fitted(captured, ran, lambda own, strategy: segments(exact, events, own, strategy))
    timed = predict_walks(pl.concat(walks, how="diagonal_relaxed"), fit)
    if limited is not None:
        timed, limited = timed[: -len(limited) or None], timed[len(timed) - len(limited) :]
    loop = predict_loops(loop, fit)
    walk = timed[: len(captured)].select(captured.columns)
    own = {
        **vars(info),
        "events_decoded": sum(len(frame) for frame in events.values()),
        "replay_version": __version__,
        "page_offset_rule": rule,
        "native_strategy": native,
    }
    lives = one_by_one(exact.avc)
    families = roots(lives)
    wait = waits(exact, families, events, comms)
    audited = audit(lives, families, events, comms)
    family, family_growth = growth(lives, families, exact.vma)
    refused = [neighbours(audited, exact.vma, events["ev_avc"])]
    if rebuilt.refusals is not None:
        refused.append(tried(rebuilt.refusals, audited.tree, events, comms))
    names = TABLES["capture"].arrow.names
    frames = {
        "capture": pl.DataFrame(
            [{name: own[name] for name in names}],
            schema_overrides={"cpus": pl.Int32},
            infer_schema_length=None,
        ),
        "summary": summarise(exact, loop, walk),
        "walk": walk,
        "loop": loop,
        **fit_tables(walk, ran, fit),
        "miss": missed_because(exact.replayed.miss, exact, events, comms),
        "wait": wait,
        "lost": lost(wait, walk),
        "tree": audited.tree,
        "split": audited.split,
        "population": audited.population,
        "refusal": pl.concat(refused),
        "family": family,
        "family_growth": family_growth,
        "rmap_item": exact.rmap_item,
        "avc": exact.avc,
        "vma": exact.vma,
    }
    if not events["ev_anon_walk"].is_empty():
        walked = anon_walks.anon_walks(
            events, exact.avc, lives, exact.vma, exact.mappings.spaces, gaps, comms
        )
        if not has_durations(told):
            walked = without_durations(walked)
        frames |= {"anon_walk": walked, "anon_summary": anon_walks.summary(walked)}
    if rebuilt.agrees is not None:
        frames["agreement"] = rebuilt.agrees.table()
    if rebuilt.other is not None:
        frames["other_kernel"] = other_kernel(rebuilt.other)
    if every is not None:
        frames |= {
            "node_summary": node_summary(timed[len(captured) :]),
            "node_walk": timed[len(captured) :],
            "node_miss": missed_because(every.miss, exact, events, comms),
        }
    if limited is not None:
        frames["sharing"] = limited
    results = {
        name: TABLES[name].cast(frame.select(TABLES[name].arrow.names).to_arrow())
        for name, frame in frames.items()
    }
    own_limits = TABLES["quality"].cast(limits(rebuilt, events, no_fit, told).to_arrow())
    results["quality"] = TABLES["quality"].check(pa.concat_tables([quality, own_limits]))
    return Analysis(results)


def _beside(observed_rows: pl.DataFrame, replayed: pl.DataFrame) -> pl.DataFrame:
    """The kernel's own rows and the replayed ones, walk by walk, the kernel's first."""
    return pl.concat([observed_rows, replayed], how="vertical_relaxed").sort("walk_id", maintain_order=True)


def _has_probes(capture: Capture, options: AnalyzeOptions) -> bool:
    """Whether the capture has the tree probes; refuse one that has not what is asked for."""
    present = {match.role.table for match in find_roles(capture)}
    if options.walks == EVERY_NODE:
        present.add("ev_walk")
    lacking = [probes for table, probes in NEEDED.items() if table not in present]
    if not lacking:
        return True
    # counting costs a pass over the file: only where something is missing
    counts = capture.event_counts()
    calls = any(name.startswith("syscalls:") for name in counts)
    if options.evidence in ("exact", "both") or not calls:
        raise MissingEventsError(
            "the capture has no events that tell the state of the anon_vma trees",
            path=capture.path,
            expected=f"probes on {'; '.join(lacking)}",
            found=", ".join(sorted(counts)[:8]) or "no events",
            hint="`replay inspect CAPTURE` shows what to record",
        )
    return False
