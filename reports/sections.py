"""The sections of the documents in their order. A new one is a function here, or in a module of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from reports import excerpts
from reports.figures import distribution as figure_distribution
from reports.figures import population as figure_population
from reports.figures import space as figure_space
from reports.figures import splits as figure_splits
from reports.figures import victims as figure_victims
from reports.figures import why as figure_why
from reports.section import Section
from reports.words import agreement as agreement_words
from reports.words import anon as anon_words
from reports.words import families as family_words
from reports.words import nodes as node_words
from reports.words import other_kernel as other_kernel_words
from reports.words import sentences as words
from reports.words import sharing as sharing_words
from reports.words import times as time_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.facts.all import Facts
    from reports.facts.quantiles import Distribution
    from reports.figures.distribution import Measure
    from reports.figures.figure import Figure


def sections(tables: Mapping[str, pa.Table], facts: Facts) -> list[Section]:
    """All sections for which the tables hold something, or whose absence says something.

    Args:
        tables: Result tables by name.
        facts: What was gathered from them.
    """
    made = [
        _strategies(facts),
        _other_kernel(facts),
        _agreement(facts),
        _nodes(facts),
        sharing_words.section(facts.sharing),
        _why(tables, facts),
        _iterations(facts),
        _times(facts),
        _population(tables, facts),
        _splits(tables, facts),
        family_words.section(facts.families),
        anon_words.section(facts.anon),
        _victims(tables, facts),
        _walks(facts),
        _quality(facts),
        _provenance(facts),
    ]
    return [section for section in made if section is not None]


def figures(tables: Mapping[str, pa.Table], facts: Facts) -> list[Figure]:
    """Every figure for which the tables hold something to draw, in the order of the page."""
    drawn = [draw(1) for section in sections(tables, facts) for draw in section.draw]
    return [figure for figure in drawn if figure is not None]


def _strategies(facts: Facts) -> Section:
    return Section(
        "strategies",
        "Strategies",
        grids=[excerpts.strategies(facts)] if facts.rows else [],
        empty="No walk is replayed: `replay inspect CAPTURE` says what to record.",
    )


def _agreement(facts: Facts) -> Section | None:
    rows = facts.agreement
    if rows is None:
        return None
    return Section(
        "agreement",
        "Agreement of the model with the probes",
        sentences=[agreement_words.sentence(rows)],
        lines=[agreement_words.sentence(rows), *agreement_words.causes(rows)],
        grids=[agreement_words.table(rows)] if len(rows) > 1 else [],
        in_text="How well system calls alone tell it (modelled against exact):",
    )


def _other_kernel(facts: Facts) -> Section | None:
    if not facts.other:
        return None
    title = other_kernel_words.title(facts.other)
    return Section(
        "other_kernel",
        title,
        sentences=other_kernel_words.MEASURES,
        grids=[excerpts.other_kernel(facts)],
        in_text=f"{title}:",
        as_tables=True,
    )


def _nodes(facts: Facts) -> Section | None:
    if not facts.nodes:
        return None
    return Section(
        "nodes",
        node_words.TITLE,
        sentences=node_words.MEASURES,
        grids=excerpts.nodes(facts),
        in_text=f"{node_words.TITLE}:",
        as_tables=True,
    )


def _why(tables: Mapping[str, pa.Table], facts: Facts) -> Section:
    grids = [excerpts.causes(facts), excerpts.missed(tables["miss"], facts)] if facts.misses else []
    return Section(
        "missed",
        "Missed mappings",
        sentences=[] if facts.misses else words.misses(facts),
        lines=[miss.sentence for miss in facts.misses],
        in_text="What made the mappings be missed:",
        grids=grids,
        draw=[
            lambda _: figure_why.draw(facts.examples, facts),
            partial(figure_space.draw, tables, facts),
        ],
    )


def _iterations(facts: Facts) -> Section | None:
    if not facts.iterations:
        return None
    return Section(
        "iterations",
        "Iterations",
        sentences=[figure_distribution.finding(figure_distribution.ITERATIONS, facts.iterations, facts)],
        grids=[excerpts.quantiles("iterations", facts.iterations, facts, "loops", "n")],
        draw=[partial(_distribution, figure_distribution.ITERATIONS, facts.iterations, facts)],
    )


def _times(facts: Facts) -> Section:
    grids, draw, sentences = [], [], []
    for measure, found in (
        (figure_distribution.HOLDS, facts.holds),
        (figure_distribution.TIMES, facts.times),
    ):
        if found:
            sentences.append(figure_distribution.finding(measure, found, facts))
            grids.append(excerpts.quantiles(measure.name, found, facts, measure.of, "ms"))
            draw.append(partial(_distribution, measure, found, facts))
    fitted = time_words.sentences(facts.fits, facts.costs)
    if facts.costs:
        grids.append(time_words.iteration_costs(facts.costs))
    return Section(
        "times",
        "Lock holds and times",
        sentences=[*sentences, *fitted],
        lines=fitted,
        in_text="What walks take (fitted to the observed):",
        grids=grids,
        draw=draw,
        empty="The capture holds no duration of a walk.",
    )


def _distribution(
    measure: Measure, found: Mapping[str, Distribution], facts: Facts, _: float
) -> Figure | None:
    """It has few bars, whatever the detail."""
    return figure_distribution.draw(measure, found, facts)


def _population(tables: Mapping[str, pa.Table], facts: Facts) -> Section:
    return Section(
        "population",
        "VMAs on the trees",
        draw=[partial(figure_population.draw, tables["avc"], tables["walk"], facts)],
        empty="No VMA is known.",
    )


def _splits(tables: Mapping[str, pa.Table], facts: Facts) -> Section | None:
    splits = facts.splits
    if splits is None:
        return None
    return Section(
        "splits",
        "Who made the VMAs",
        sentences=splits.sentences,
        lines=splits.lines,
        in_text="Who made the VMAs:",
        grids=[each for each in (excerpts.split_sites(splits), excerpts.refusals(splits)) if each.rows],
        draw=[partial(figure_splits.draw, tables, facts)],
    )


def _victims(tables: Mapping[str, pa.Table], facts: Facts) -> Section | None:
    waits = facts.waits
    if waits is None:
        return None
    known = bool(waits.groups)
    grids = [excerpts.waiters(waits)] if known else []
    if facts.lost:
        grids.append(time_words.lost_table(facts.lost))
    predicted = time_words.losses(facts.lost)
    if waits.walks:
        grids.append(excerpts.blocking_walks(waits, tables["walk"], facts))
    return Section(
        "victims",
        "Who waits for the lock",
        sentences=[*waits.sentences, *predicted] if known else [],
        lines=[*waits.lines[:1], *predicted, *waits.lines[1:]] if waits.count else [],
        in_text="Who waited for the lock:",
        grids=grids,
        draw=[partial(figure_victims.draw, tables, facts)] if waits.count else [],
        empty="The capture holds no wait for the lock of a known anon_vma: it takes the events "
        "lock:contention_begin and lock:contention_end to tell.",
    )


def _walks(facts: Facts) -> Section:
    title, lines = words.worst_walks(facts)
    return Section(
        "walks",
        "Worst walks",
        lines=lines,
        in_text=title,
        grids=[excerpts.longest_walks(facts)] if lines else [],
        empty="The capture holds no walk.",
    )


def _quality(facts: Facts) -> Section:
    return Section(
        "quality",
        "What limits the evidence",
        lines=[f"{note.severity}: {note.head}: {note.effect}" for note in facts.notes],
        in_text="What limits the evidence:",
        grids=[excerpts.quality(facts)] if facts.notes else [],
        empty="Nothing is known to limit the evidence.",
    )


def _provenance(facts: Facts) -> Section:
    return Section("provenance", "Where this comes from", grids=[excerpts.origin(facts)])
