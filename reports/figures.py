"""The figures of the report, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import figure_iterations, figure_population, figure_space
from reports.facts import gather

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.facts import Facts
    from reports.figure import Figure


def figures_of(tables: Mapping[str, pa.Table]) -> dict[str, Figure]:
    """The figures by name, in the order of the page.

    Args:
        tables: Result tables by name.
    """
    return {figure.name: figure for figure in figures(tables, gather(tables))}


def figures(tables: Mapping[str, pa.Table], facts: Facts) -> list[Figure]:
    """Every figure for which the tables hold something to draw."""
    drawn = [
        figure_space.draw(tables, facts),
        figure_iterations.draw(tables["loop"], facts),
        figure_population.draw(tables["avc"], tables["walk"], facts),
    ]
    return [figure for figure in drawn if figure is not None]
