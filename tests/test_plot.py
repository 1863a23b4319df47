"""Pictures of their own: every figure in every format, read back by a decoder that is not ours."""

from __future__ import annotations

import io
import re
import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread
from report_tables import sample_tables

from replay.cli.source import results
from replay.results.plot import check_output, list_figures, plot
from reports import figures_of, write_reports
from reports.pictures import WIDTH, find_browser, light_spec, render_figure
from schemas.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("why", "space", "iterations", "holds", "times", "population", "victims")
BLUE, VERMILION, PURPLE, GREEN = 0x0072B2, 0xD55E00, 0xCC79A7, 0x009E73
SHOWN = dict.fromkeys(NAMES, BLUE) | {"why": PURPLE, "population": VERMILION}
HOSTILE = "</script><b>x</b>$\\frac{1}{2}$"


def colours(picture: bytes) -> set[int]:
    pixels = (imread(io.BytesIO(picture))[:, :, :3] * 255).round().astype(int)
    return set(np.unique(pixels @ np.array([1 << 16, 1 << 8, 1])).tolist())


def test_figures_are_listed_with_what_they_show() -> None:
    lines = list_figures(sample_tables()).splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert lines[1].split(maxsplit=1)[1] == (
        "vm_pgoff misses 30 mappings of this anon_vma; full, addr, linear none."
    )


@pytest.mark.parametrize("name", NAMES)
def test_svg_is_a_document_of_its_own_with_its_finding(name: str) -> None:
    figure = figures_of(sample_tables(custom=(HOSTILE,)))[name]
    root = ElementTree.fromstring(render_figure(figure, ".svg"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    head = texts[: texts.index(figure.title)]
    assert " ".join(map(str, head)) == figure.finding
    assert {element.tag.partition("}")[2] for element in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "tspan", "g", "path",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_png_without_a_browser(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.pictures.find_browser", lambda: None)
    picture = render_figure(figures_of(sample_tables(custom=(HOSTILE,)))[name], ".png")
    assert imread(io.BytesIO(picture)).shape[1] == 2 * WIDTH
    assert {SHOWN[name]} <= colours(picture)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_png_with_a_browser() -> None:
    assert find_browser() is not None
    picture = render_figure(figures_of(sample_tables())["space"], ".png")
    assert imread(io.BytesIO(picture)).shape[1] == 2 * WIDTH
    assert {VERMILION, BLUE, PURPLE, GREEN} <= colours(picture)


def test_without_anything_that_draws_a_png_the_hint_names_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OutputError, match=r"rmap-replay\[plot\]"):
        render_figure(figures_of(sample_tables())["space"], ".png")


def test_no_colour_of_the_page_is_left_in_a_picture() -> None:
    for figure in figures_of(sample_tables()).values():
        assert not re.search(r"'color': 'ink'", repr(light_spec(figure)))


def test_names_and_files_that_do_not_fit_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'space'"):
        plot(sample_tables(), "spaec", tmp_path / "x.svg")
    with pytest.raises(UsageError, match=r"use \.png, \.svg, \.html"):
        check_output(tmp_path / "x.gif", force=False)
    (tmp_path / "x.svg").touch()
    with pytest.raises(OutputError, match="will not overwrite without --force"):
        check_output(tmp_path / "x.svg", force=False)
    check_output(tmp_path / "x.svg", force=True)


def test_a_result_folder_is_as_good_as_its_capture(tmp_path: Path) -> None:
    tables = sample_tables()
    write_reports(tables, tmp_path / "out")
    assert {name: table.to_pylist() for name, table in results(tmp_path / "out").items()} == {
        name: table.to_pylist() for name, table in tables.items()
    }
    with pytest.raises(UsageError, match="holds no result"):
        results(tmp_path)


def test_only_the_name_of_a_strategy_is_bold_in_a_static_picture() -> None:
    svg = render_figure(figures_of(sample_tables(custom=(HOSTILE,)))["space"], ".svg").decode()
    titles = [
        ["".join(part.itertext()) for part in element] + [element[0].tail]
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        if len(element)
    ]
    assert titles[0] == ["full", " misses none here"]
    assert titles[-1] == [HOSTILE, " misses none here"]
