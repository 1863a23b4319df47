"""The sample captures show what their README says, and the replay of each equals its kernel's own counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replay import analyze
from tests.lab.checks import differences

SAMPLES = Path(__file__).resolve().parent.parent / "captures" / "samples"

# Iterations of the longest loop, and missed mappings. Of 8 groups of 64 equal pages 2 are migrated in each
# phase: 64 mappings unmapped and 64 restored, twice a phase.
SHOWN = {
    "mremap-7.3": {"full": (512, 0), "addr": (0, 512), "vm_pgoff": (1, 252), "linear": (1, 0)},
    "stack-7.3": {"full": (512, 0), "addr": (0, 512), "vm_pgoff": (1, 252), "linear": (1, 0)},
    "fork-7.3": {"full": (1536, 0), "addr": (3, 0), "vm_pgoff": (3, 1260), "linear": (3, 0)},
    "file-7.3": {"full": (512, 0), "addr": (1, 0), "vm_pgoff": (0, 512), "linear": (1, 0)},
    "holes-6.12": {"full": (384, 0), "addr": (1, 0), "vm_pgoff": (1, 756), "linear": (1, 0)},
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_loop_equals_the_kernels_own_count(name: str) -> None:
    tables = analyze(SAMPLES / f"{name}.dat").tables
    assert "assumed_instant" not in tables["quality"]["kind"].to_pylist()
    assert list(differences(tables, name.split("-")[0], "record", 512)) == []


@pytest.mark.parametrize("name", SHOWN)
def test_a_sample_shows_what_it_is_named_for(name: str) -> None:
    rows = analyze(SAMPLES / f"{name}.dat").tables["summary"].to_pylist()
    assert {
        row["strategy"]: (row["iterations_max"], row["missed"])
        for row in rows
        if row["strategy"] != "observed"
    } == SHOWN[name]


def test_the_readme_names_every_sample() -> None:
    named = set(re.findall(r"^\| `([\w.-]+\.dat)`", (SAMPLES / "README.md").read_text(), re.MULTILINE))
    assert named == {path.name for path in SAMPLES.glob("*.dat")}
    assert len(named) == 6
