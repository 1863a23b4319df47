"""The report of a fleet as one HTML file: static, without a script, links beside it to the single reports."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import fleet_text, svg
from reports.excerpts import Grid, grid
from reports.palette import strategy_colour
from reports.words import cell
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.fleet_facts import FleetFacts, Row

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
MAX_PICTURES: Final = 12
"""Kernel releases that are drawn, those with most captures."""

_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 4", "12 4")


def page_of(facts: FleetFacts) -> str:
    """Render the report; the same for the same facts."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_asset),
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    drawn = [name for name, _ in facts.kernels[:MAX_PICTURES]]
    return environment.get_template("fleet.html").render(
        policy=POLICY,
        css=Markup(_asset("page.css")),
        head=[line.replace("\n", "") for line in fleet_text.head(facts)],
        verdict=fleet_text.verdict(facts),
        text_form=escape(fleet_text.text_of(facts)),
        strategies=_strategies(facts),
        causes=_causes(facts),
        releases=_releases(facts),
        pictures=[_picture(facts, release) for release in drawn if _curves(facts, release)],
        undrawn=max(0, len(facts.kernels) - MAX_PICTURES),
        longest=[(_link(row), fleet_text.longest(row)) for row in facts.longest],
        missing=[(_link(row), fleet_text.missing(row)) for row in facts.missing],
        failures=_failures(facts),
    )


def _strategies(facts: FleetFacts) -> Grid:
    counts = ("captures", "walks", "loops", "iterations_max", "time_ms_max")
    columns = (*counts, "answered", "missing", "found", "missed")
    rows = [[row["strategy"], *(cell(row[column]) for column in columns)] for row in facts.strategies]
    return grid(
        "strategy,captures:n,walks:n,loops:n,most iterations in a loop:n,longest walk ms:n,"
        "answered:n,misses in:bad,found:n,missed:bad",
        rows,
        "answered: captures whose misses are known; misses in: those of them with any; found, missed: "
        "mappings in them. -: not known.",
    )


def _causes(facts: FleetFacts) -> Grid:
    rows = [
        [row["strategy"], row["cause_event"] or "not known", cell(row["captures"]), cell(row["mappings"])]
        for row in facts.causes
    ]
    return grid("strategy,what moved or split the VMA,captures:n,mappings missed:n", rows)


def _releases(facts: FleetFacts) -> Grid:
    rows = [
        [
            row["kernel_release"] or "not known",
            row["strategy"],
            fleet_text.MEASURES[row["measure"]],
            cell(row["captures"]),
            cell(row["values"]),
            *(fleet_text.quantile(row, name) for name in ("p50", "p90", "p99")),
        ]
        for row in facts.releases
    ]
    return grid(
        "kernel,strategy,measure,captures:n,loops or walks:n,50 %:n,90 %:n,99 %:n",
        rows,
        "Of all loops, or walks, of all captures together. Quantiles are upper ends of bins: exact up to 15, "
        "above at most an eighth too high.",
    )


def _failures(facts: FleetFacts) -> Grid:
    rows = [
        [row["status"], row["error"], row["what"], cell(row["captures"]), row["path"]]
        for row in facts.failures
    ]
    return grid(
        "status,kind,what:wide,captures:n,first of them:wide",
        rows,
        "captures.parquet and captures.txt list every capture.",
    )


def _link(row: Row) -> str | None:
    """Where the capture's own report is; None: it has none."""
    return None if row["result"] is None else f"{row['result']}/report.html"


def _curves(facts: FleetFacts, release: str | None) -> list[tuple[str, Sequence[tuple[int, float]]]]:
    """Curves of one release in the order of the strategies."""
    names = [row["strategy"] for row in facts.strategies]
    return [(name, facts.curves[release, name]) for name in names if (release, name) in facts.curves]


def _picture(facts: FleetFacts, release: str | None) -> dict[str, Any]:
    """Share of loops with at most so many iterations: a line a strategy, each with its own dash."""
    curves = _curves(facts, release)
    most = max(points[-1][0] for _, points in curves)
    x = svg.Axis(0.0, max(1.0, svg.log_ticks(most)[-1][0] + 1), 62, 700, svg.log_ticks(most))
    y = svg.Axis(0, 1, 250, 20, [(share / 4, f"{share * 25} %") for share in range(5)])
    parts = [svg.grid(x, y, "iterations of an inner loop (log)", "loops with at most so many")]
    for place, (name, points) in enumerate(curves):
        colour, dash = strategy_colour(name, place), _DASHES[place % len(_DASHES)]
        line = [(0.0, 0.0), *((math.log10(max(1, high)), share) for high, share in points), (x.high, 1.0)]
        parts.append(svg.steps(x, y, line, colour, dash))
        key_x, key_y = svg.Axis(0, 1, 715, 745, []), svg.Axis(0, 1, 40 + 20 * place, 0, [])
        parts.append(svg.steps(key_x, key_y, [(0, 0), (1, 0)], colour, dash))
        parts.append(svg.text(750, 44 + 20 * place, name, "start"))
    title = release or "kernel not known"
    ends = ", ".join(f"{name} {points[-1][0]:,}" for name, points in curves)
    alt = f"Iterations of the inner loops of {title}; all are at most: {ends}."
    return {"title": title, "picture": Markup(svg.picture(300, alt, *parts))}


def _asset(name: str) -> str:
    return (files("reports") / "assets" / name).read_text(encoding="utf-8")
