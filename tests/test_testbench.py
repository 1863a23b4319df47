"""The testbench: KSM set back, VMAs as the running kernel shows them in /proc, the table of durations."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from captures.recipes import KERNELS
from replay import analyze
from replay.cli.record import Scenario
from replay.testbench import ksm as testbench_ksm
from replay.testbench.ksm import Ksm
from replay.testbench.record import durations
from replay.testbench.scenarios import SCENARIOS
from schemas.errors import UsageError
from tests.fake_machine import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = 64
BEFORE = {
    "run": "0",
    "pages_to_scan": "100",
    "sleep_millisecs": "20",
    "use_zero_pages": "1",
    "smart_scan": "1",
    "advisor_mode": "none [scan-time]",
}


@pytest.fixture
def ksm_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ksm"
    folder.mkdir()
    for name, text in BEFORE.items():
        (folder / name).write_text(f"{text}\n")
    (folder / "full_scans").write_text("7\n")
    (folder / "ksm_merging_pages").write_text("0\n")
    return folder


def settings(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text().strip() for name in BEFORE}


AFTER = {**BEFORE, "advisor_mode": "scan-time"}
"""What is written back: of a list of modes the one that was chosen."""


def test_ksm_is_fast_inside_and_set_back_outside(ksm_folder: Path) -> None:
    with Ksm(ksm_folder):
        inside = settings(ksm_folder)
    assert inside["run"] == "1"
    assert int(inside["pages_to_scan"]) > 10_000
    assert (inside["advisor_mode"], inside["smart_scan"], inside["use_zero_pages"]) == ("none", "0", "0")
    assert settings(ksm_folder) == AFTER


def test_ksm_is_set_back_after_an_error(ksm_folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), Ksm(ksm_folder):
        _ = 1 / 0
    assert settings(ksm_folder) == AFTER


def test_ksm_of_an_older_kernel_has_fewer_settings(ksm_folder: Path) -> None:
    (ksm_folder / "advisor_mode").unlink()
    (ksm_folder / "smart_scan").unlink()
    with Ksm(ksm_folder):
        assert not (ksm_folder / "smart_scan").exists()
    assert (ksm_folder / "pages_to_scan").read_text() == "100"


def test_no_ksm_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot set KSM up: No such file"), Ksm(tmp_path):
        pass


def test_ksm_that_merges_too_slowly(ksm_folder: Path) -> None:
    (ksm_folder / "ksm_merging_pages").write_text("12\n")
    with (
        Ksm(ksm_folder, own=ksm_folder) as ksm,
        pytest.raises(UsageError, match=r"merged 12 of 64 pages in 0\.2 s"),
    ):
        ksm.merge(PAGES, 0.2)


def test_merging_waits_for_two_more_passes_and_lets_ksmd_rest(
    ksm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ksm_folder / "ksm_merging_pages").write_text(f"{PAGES}\n")

    waited = []

    def scan(seconds: float) -> None:
        """What ksmd does meanwhile: a pass."""
        waited.append(seconds)
        (ksm_folder / "full_scans").write_text(f"{7 + len(waited)}\n")

    monkeypatch.setattr(testbench_ksm.time, "sleep", scan)
    with Ksm(ksm_folder, own=ksm_folder) as ksm:
        assert ksm.merge(PAGES, 30) == PAGES
        assert len(waited) == 2
        assert (ksm_folder / "run").read_text() == "0"


# Run by a process of its own: a scenario with the real system calls, without KSM and without migration. In
# every phase it prints the VMAs that the kernel shows between the first and the last of its pages.
WATCHED = """
import sys
from pathlib import Path
from replay.testbench.bench import Bench, BenchOptions
from replay.testbench.scenarios import SCENARIOS

class Watched(Bench):
    def merge(self, pages):
        print("merge", pages)

    def walk(self, phase, addresses):
        lines = Path("/proc/self/maps").read_text().splitlines()
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
        ends = min(addresses), max(addresses)
        first, last = (start for page in ends for start, end in ranges if start <= page < end)
        of = [line.split() for line, (start, end) in zip(lines, ranges) if first <= start <= last]
        print(phase, len(addresses), len(of), "".join(sorted({words[1] for words in of})), of[0][2])

SCENARIOS[sys.argv[1]](Watched(BenchOptions(sys.argv[1], pages=int(sys.argv[2])), None))
"""


def watched(scenario: str) -> Iterator[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, scenario, str(PAGES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    return (line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("scenario", "phases"),
    [
        ("split", {"merged": 1, "split": PAGES}),
        ("fork", {"forked": 1, "children-split": 1, "split": PAGES}),
        ("mremap", {"moved": 1, "split": PAGES}),
        ("file", {"merged": 1, "split": PAGES}),
        # The third of each four pages is unmapped. At last each first one is in a VMA with the second and, if
        # that may still merge, with the fourth of the group before: 1 + (8 x 2 + 7 x 1) + 1.
        ("holes", {"holes": PAGES // 4 * 3, "unmerged": PAGES // 4 * 3, "joined": 25}),
    ],
)
def test_the_kernel_splits_as_the_scenario_says(scenario: str, phases: dict[str, int]) -> None:
    merges, *walks = watched(scenario)
    assert merges == ["merge", str(PAGES)]
    assert {phase: int(vmas) for phase, _, vmas, *_ in walks} == phases


def test_pages_of_a_file_are_at_another_offset_than_their_address() -> None:
    _, merged, _ = watched("file")
    assert merged[4] == f"{16 * 4096:08x}"


def test_random_operations_are_the_same_for_the_same_seed() -> None:
    first, second = list(watched("random")), list(watched("random"))
    assert [line[:2] for line in first] == [line[:2] for line in second]
    assert PAGES // 2 - 16 <= int(first[-1][1]) < PAGES


def test_a_family_of_ordinary_pages_is_merged_by_nobody() -> None:
    assert [line[0] for line in watched("family")] == ["alone", "written", "written-again", "alone-again"]


def test_stack_pages_are_below_the_stack_in_use() -> None:
    merges, merged, split = watched("stack")
    assert merges == ["merge", str(PAGES)]
    assert merged[0] == "merged"
    assert int(split[2]) >= PAGES


def test_every_scenario_can_be_named() -> None:
    assert set(Scenario) == set(SCENARIOS)
    assert set(KERNELS) == {"6.12", "7.3"}


def test_a_scenario_without_equal_pages_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "replay", "testbench", "split", "--pages", "64", "--contents", "40"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("replay: 64 pages of 40 contents: no two are alike\n  ")


def test_sigterm_ends_it_in_order() -> None:
    code = (
        "import sys, time\n"
        "from replay.testbench.run import _end_in_order\n"
        "_end_in_order()\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "finally:\n    print('set back', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGTERM)
        assert process.stdout.read() == "set back\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_durations_are_those_between_entry_and_return() -> None:
    capture = ROOT / "tests" / "data" / "tracedat" / "zstd.dat"
    text = subprocess.run(
        ["trace-cmd", "report", "-t", capture], capture_output=True, text=True, check=True
    ).stdout
    open_walks: dict[str, tuple[str, int]] = {}
    took: dict[str, list[int]] = {}
    for line in text.splitlines():
        found = re.match(r"\s*\S+-(\d+)\s+\[\d+\]\s+(\d+)\.(\d+): rmap_walk_ksm(_ret)?: (.*)", line)
        if found is None:
            continue
        task, now = found[1], int(found[2]) * 10**9 + int(found[3])
        if found[4]:
            caller, then = open_walks.pop(task)
            took.setdefault(caller, []).append(now - then)
        else:
            name = re.search(r"rmap_one=(\w+)", found[5])
            assert name is not None
            open_walks[task] = (name[1], now)
    assert took
    # trace-cmd prints who walks as an address: compare without the names.
    table = durations(analyze(capture).tables)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert sorted(rows.values()) == sorted(
        [str(len(each)), f"{max(each) / 1e6:,.3f}", f"{sum(each) / len(each) / 1e6:,.3f}"]
        for each in took.values()
    )
    assert set(rows) == {
        "try_to_migrate_one",
        "remove_migration_pte",
        "folio_referenced_one",
        "try_to_unmap_one",
    }
