"""Which evidence and which kernel's rules are chosen, and what the documents say of the agreement."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from replay.evidence import rules_of
from reports.text import render_text
from schemas import TABLES
from tests.agreement import load
from tests.report_tables import sample_tables
from tests.test_cli import replay

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("kernel", "causes"), [("6.12", set()), ("7.3", {"process_madvise"})])
def test_json_tells_how_well_the_model_agrees(kernel: str, causes: set[str], tmp_path: Path) -> None:
    """On 7.3 the program changes a range by a call that does not tell it: all that differs has that cause."""
    capture = DATA / "calls" / f"{kernel}.perf.data.xz"
    done = replay("analyze", capture, "--evidence", "both", "--format", "json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["evidence"]["agreement"]
    assert set(found["causes"]) == causes
    assert found["instants"] - found["agreeing"] == sum(found["causes"].values())
    assert found["share"] == found["agreeing"] / found["instants"]
    assert found["instants"] > 150
    assert (found["share"] == 1) is (not causes)


def test_what_cannot_be_compared_is_said() -> None:
    """Asked for, but every tree grew from what was mapped before the capture began."""
    said = "There is nothing to compare"
    assert said not in render_text(sample_tables())
    assert said in render_text(sample_tables() | {"agreement": TABLES["agreement"].empty()})


@pytest.mark.parametrize(("name", "rules"), [("6.12_s3-mremap_truth", "6.12"), ("7.3_s4-holes_truth", "7.3")])
def test_what_the_capture_shows_counts_more_than_the_release(name: str, rules: str) -> None:
    events = load(DATA / "truth" / f"{name}.dat").events
    other = {"6.12": "7.3.4", "7.3": "6.12.107"}[rules]
    assert rules_of(other, events) == rules
    blind = events | {"ev_avc": events["ev_avc"].clear()}
    assert rules_of(other, blind) != rules
    assert rules_of(None, {"ev_avc": pl.DataFrame()}) == "6.12"
