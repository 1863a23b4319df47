"""DAMON's files as the testbench leaves them: it looks at the pages that it is given, and is as before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replay.testbench.damon import look_at
from replay.testbench.mm import PAGE

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = [0x1A206C, 0x31526F]


@pytest.fixture
def damon(tmp_path: Path) -> Path:
    """The files that DAMON makes once their numbers are written."""
    folder = tmp_path / "kdamonds"
    context = folder / "0" / "contexts" / "0"
    (context / "monitoring_attrs" / "intervals").mkdir(parents=True)
    for number in range(len(FRAMES)):
        (context / "targets" / "0" / "regions" / str(number)).mkdir(parents=True)
    (folder / "nr_kdamonds").write_text("0\n")
    (tmp_path / "enabled").write_text("Y\n")
    return folder


def test_it_looks_at_the_pages_and_is_off_afterwards(damon: Path, tmp_path: Path) -> None:
    assert look_at(FRAMES, damon, tmp_path / "enabled")
    context = damon / "0" / "contexts" / "0"
    assert (context / "operations").read_text() == "paddr"
    ranges = context / "targets" / "0" / "regions"
    assert (ranges / "nr_regions").read_text() == "2"
    for number, frame in enumerate(FRAMES):
        assert int((ranges / str(number) / "start").read_text()) == frame * PAGE
        assert int((ranges / str(number) / "end").read_text()) == frame * PAGE + PAGE
    assert (damon / "0" / "state").read_text() == "off"
    assert (damon / "nr_kdamonds").read_text() == "0"
    assert (tmp_path / "enabled").read_text() == "Y"


def test_statistics_that_were_off_stay_off(damon: Path, tmp_path: Path) -> None:
    (tmp_path / "enabled").write_text("N\n")
    assert look_at(FRAMES, damon, tmp_path / "enabled")
    assert (tmp_path / "enabled").read_text() == "N\n"


def test_what_somebody_else_uses_is_left_alone(damon: Path, tmp_path: Path) -> None:
    (damon / "nr_kdamonds").write_text("1\n")
    (damon / "0" / "state").write_text("on\n")
    assert not look_at(FRAMES, damon, tmp_path / "enabled")
    assert (damon / "0" / "state").read_text() == "on\n"
    assert (tmp_path / "enabled").read_text() == "Y\n"


def test_refused_it_is_as_before(damon: Path, tmp_path: Path) -> None:
    (damon / "0" / "state").mkdir()  # a write to it fails
    assert not look_at(FRAMES, damon, tmp_path / "enabled")
    assert (damon / "nr_kdamonds").read_text() == "0"
    assert (tmp_path / "enabled").read_text() == "Y"


def test_a_kernel_without_damon(tmp_path: Path) -> None:
    assert not look_at(FRAMES, tmp_path / "none", tmp_path / "none")
