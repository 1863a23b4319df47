"""The report of a fleet as one HTML file: static, without a script, links beside it to the single reports."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup, escape

from reports.escape import plotly_label
from reports.figures import svg_picture
from reports.figures.figure import axis_title, layout, lines
from reports.figures.palette import strategy_colour
from reports.figures.scales import count_ticks
from reports.fleet import text as fleet_text
from reports.grid import Grid, grid
from reports.page import environment
from reports.words.sentences import cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.fleet.facts import FleetFacts, Row

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
MAX_PICTURES: Final = 12
"""Kernel releases that are drawn, those with most captures."""

_DASHES: Final = ("solid", "dash", "dot", "dashdot")


def page_of(facts: FleetFacts) -> str:
    """Render the report; the same for the same facts."""
    drawn = [name for name, _ in facts.kernels[:MAX_PICTURES]]
    return (
        environment()
        .get_template("fleet.html")
        .render(
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
    )


def _strategies(facts: FleetFacts) -> Grid:
    counts = ("captures", "walks", "loops", "iterations_max", "time_ms_max")
    columns = (*counts, "answered", "missing", "found", "missed")
    rows = [[row["strategy"], *(cell(row[column]) for column in columns)] for row in facts.strategies]
    return grid(
        "strategies",
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
    return grid("causes", "strategy,what moved or split the VMA,captures:n,mappings missed:n", rows)


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
        "releases",
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
        "failures",
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
    ticks = count_ticks(1, most)
    end = max(1.0, ticks[-1][0] + 1)
    data = []
    for place, (name, points) in enumerate(curves):
        line = [(0.0, 0.0), *((math.log10(max(1, high)), share) for high, share in points), (end, 1.0)]
        across, up = [x for x, _ in line], [y for _, y in line]
        shape = {"shape": "hv", "dash": _DASHES[place % len(_DASHES)]}
        data.append(lines(across, up, plotly_label(name), strategy_colour(name, place), line=shape))
    axis: dict[str, Any] = {
        "title": axis_title("iterations of an inner loop (log)"),
        "range": [0, end],
        "tickvals": [value for value, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }
    shares = [share / 4 for share in range(5)]
    share_axis: dict[str, Any] = {
        "title": axis_title("loops with at most so many"),
        "range": [0, 1],
        "tickvals": shares,
        "ticktext": [f"{share:.0%}" for share in shares],
    }
    spec = {"data": data, "layout": layout(330, 70, 40, showlegend=True, xaxis=axis, yaxis=share_axis)}
    title = release or "kernel not known"
    ends = ", ".join(f"{name} {points[-1][0]:,}" for name, points in curves)
    alt = f"Iterations of the inner loops of {title}; all are at most: {ends}."
    return {"title": title, "picture": Markup(svg_picture.draw(spec, alt))}


def _asset(name: str) -> str:
    return (files("reports") / "assets" / name).read_text(encoding="utf-8")
