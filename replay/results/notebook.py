"""``Analysis.figures``: the figures of the report, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import pyarrow as pa

    from reports.figures.figure import Figure


class Figures(Mapping[str, "Picture"]):
    """The figures for which there is something to draw, by name; drawn on first use.

    Args:
        tables: Result tables by name.
    """

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = tables
        self._drawn: dict[str, Figure] | None = None

    def __getitem__(self, name: str) -> Picture:
        """One figure.

        Raises:
            KeyError: There is no figure of this name.
        """
        return Picture(self._all()[name])

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the report."""
        return iter(self._all())

    def __len__(self) -> int:
        """Number of figures."""
        return len(self._all())

    def _all(self) -> dict[str, Figure]:
        if self._drawn is None:
            from reports import figures_of

            self._drawn = figures_of(self._tables)
        return self._drawn


class Picture:
    """One figure.

    Attributes:
        title: What is drawn.
        finding: What it shows, in a sentence.
        spec: ``data`` and ``layout`` as ``plotly.graph_objects.Figure`` takes them, on light paper.
    """

    def __init__(self, figure: Figure) -> None:
        from reports.pictures import light_spec

        self._figure = figure
        self.title = figure.title
        self.finding = figure.finding
        self.spec = light_spec(figure)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a picture; the suffix chooses the format, as for ``replay plot``.

        Raises:
            UsageError: The suffix is of no picture.
            OutputError: It cannot be written, or nothing is installed that makes a PNG.
        """
        from replay.results.plot import check_output, write_file
        from reports.pictures import render_figure

        output = Path(path)
        check_output(output, force=True)
        write_file(output, render_figure(self._figure, output.suffix))

    def _repr_html_(self) -> str:
        """The static picture, for notebooks: SVG, a few kB, without scripts."""
        from reports.pictures import standalone_svg

        return standalone_svg(self._figure)
