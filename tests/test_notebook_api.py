"""The public Python API, pinned: what `import replay` promises to notebooks and scripts."""

from __future__ import annotations

import inspect
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import plotly.graph_objects as go
import pyarrow as pa
import pytest
from report_tables import sample_tables

import replay
from schemas import TABLES

if TYPE_CHECKING:
    from replay import Analysis

SAMPLE = Path(__file__).parent.parent / "captures" / "samples" / "split-6.12.dat"
HOSTILE = "</code><script>alert(1)</script>"


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return replay.analyze(str(SAMPLE), replay.AnalyzeOptions(strategies=("full", "vm_pgoff")))


def test_the_public_names_and_signatures() -> None:
    assert sorted(replay.__all__) == ["Analysis", "AnalyzeOptions", "__version__", "analyze"]
    assert list(inspect.signature(replay.analyze).parameters) == ["path", "options"]
    assert {name for name in dir(replay.Analysis) if not name.startswith("_")} == {"figures"}
    assert "strategies" in inspect.signature(replay.AnalyzeOptions).parameters


def test_tables_are_arrow_and_match_their_schemas(analysis: Analysis) -> None:
    assert set(analysis.tables) >= {
        "capture", "summary", "walk", "loop", "miss", "rmap_item", "avc", "vma", "quality",
    }  # fmt: skip
    for name, table in analysis.tables.items():
        assert isinstance(table, pa.Table)
        assert TABLES[name].check(table).num_rows == table.num_rows
    assert analysis.tables["summary"]["strategy"].to_pylist() == ["observed", "full", "vm_pgoff"]


def test_figures_are_those_of_the_report(analysis: Analysis, tmp_path: Path) -> None:
    assert list(analysis.figures) == [
        "why", "space", "iterations", "holds", "times", "population", "splits",
    ]  # fmt: skip
    space = analysis.figures["space"]
    assert space.finding == "vm_pgoff misses 58 mappings of this anon_vma; full none."
    assert len(go.Figure(space.spec).data) == len(space.spec["data"])
    space.save(tmp_path / "space.svg")
    assert ElementTree.parse(tmp_path / "space.svg").getroot().tag.endswith("svg")
    with pytest.raises(KeyError):
        analysis.figures["nothing"]


def test_the_notebook_shows_verdict_and_table_and_no_script() -> None:
    shown = replay.Analysis(sample_tables(capture={"path": HOSTILE}))._repr_html_()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(shown)
    assert set(tags) == {"p", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    assert "vm_pgoff would miss 30 of 64 mappings" in shown
    assert len(shown) < 5000
    picture = replay.Analysis(sample_tables(custom=(HOSTILE,))).figures["iterations"]._repr_html_()
    assert "<script" not in picture
