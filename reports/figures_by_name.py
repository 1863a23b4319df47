"""The figures of the report by name, for pictures and notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.facts.all import gather
from reports.sections import figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.figures.figure import Figure


def figures_of(tables: Mapping[str, pa.Table]) -> dict[str, Figure]:
    """The figures by name, in the order of the page.

    Args:
        tables: Result tables by name.
    """
    return {figure.name: figure for figure in figures(tables, gather(tables))}
