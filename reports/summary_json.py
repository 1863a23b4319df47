"""The report for scripts: one JSON document, versioned, keys in a stable order, no time of its making."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from reports.facts import all as report_facts
from reports.sections import sections
from reports.words import agreement as agreement_words
from reports.words import sentences as words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.all import Facts
    from reports.section import Section

SCHEMA_VERSION: Final = "1.9"
"""``MAJOR.MINOR``: a new key raises MINOR; one that is removed, retyped or means something else, MAJOR."""

MAX_ROWS: Final = 1000
"""Rows of ``misses`` and of ``quality`` that the document holds; ``omitted`` counts the others."""


def json_summary(tables: Mapping[str, pa.Table]) -> str:
    """Render the summary as JSON; byte-identical for the same tables.

    Keys: ``schema_version``; ``capture`` (the row of table ``capture``); ``verdict`` (sentences);
    ``uncertain_walks`` (value of ``walk.uncertain`` to the number of walks, each counted once);
    ``walks`` (how many have counts under all strategies, bounds, or neither: ``counted``, ``bounded``,
    ``unknown``; of how many it is known what is missed: ``missed_known``);
    ``summary`` (rows of table ``summary``); ``first_causes`` (strategy to event, time after the first event
    in ns, pid); ``evidence`` (word to meaning; ``agreement``: of the model with the probes: share, agreeing,
    instants, agreeing_trees, causes with their instants; null: not asked);
    ``time_fit``, ``iteration_cost``, ``lost`` (rows of the tables of these names);
    ``nodes`` (rows of table ``node_summary``); ``sharing`` (rows of table ``sharing``);
    ``other_kernel`` (rows of the table of this name); ``anon`` (rows of table ``anon_summary``);
    ``misses`` (strategy, cause or null, mappings);
    ``quality`` (rows of table ``quality`` that say the same together); ``omitted`` (rows of the last two
    beyond the first 1,000); ``sections``: for each section of the page its sentences and its tables, with
    times in ns and addresses as hexadecimal strings.
    Null means not known.

    Raises:
        ValueError: A number is not finite.
    """
    facts = report_facts.gather(tables)
    return json_of(facts, sections(tables, facts))


def json_of(facts: Facts, parts: Sequence[Section]) -> str:
    """As `json_summary`, from facts and sections already made."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "capture": dict(facts.capture),
        "verdict": words.verdict(facts),
        "uncertain_walks": dict(facts.uncertain),
        "walks": dict(facts.counted),
        "summary": [dict(row) for row in facts.rows],
        "first_causes": {name: asdict(first) for name, first in facts.firsts.items()},
        "evidence": {**dict(words.evidence(facts)), "agreement": agreement_words.document(facts.agreement)},
        "time_fit": [dict(row) for row in facts.fits],
        "iteration_cost": [dict(row) for row in facts.costs],
        "lost": [dict(row) for row in facts.lost],
        "nodes": [dict(row) for row in facts.nodes],
        "sharing": [dict(row) for row in facts.sharing],
        "other_kernel": [dict(row) for row in facts.other],
        "anon": [dict(row) for row in facts.anon],
        "misses": [asdict(miss) for miss in facts.misses[:MAX_ROWS]],
        "quality": [asdict(note) for note in facts.notes[:MAX_ROWS]],
        "omitted": {
            "misses": max(0, len(facts.misses) - MAX_ROWS),
            "quality": max(0, len(facts.notes) - MAX_ROWS),
        },
        "sections": {
            part.name: {"sentences": list(part.sentences)} | {grid.name: grid.values() for grid in part.grids}
            for part in parts
        },
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
