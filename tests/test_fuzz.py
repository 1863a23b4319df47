"""Files that broke the readers once do so no more; a short run of the fuzzer, and the fuzzer itself."""

from __future__ import annotations

import lzma
import random
import subprocess
import sys
from pathlib import Path

import pytest

from replay.options import AnalyzeOptions
from tests import fuzz_captures, fuzz_histories, test_hostile

CRASHES = Path(__file__).parent / "data" / "crashes"


@pytest.mark.parametrize("name", sorted(path.name for path in CRASHES.glob("*.xz")))
def test_what_broke_once(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / "case", lzma.decompress((CRASHES / name).read_bytes())
    assert fuzz_captures.check(path, content) in test_hostile.OUTCOMES
    for evidence in (None, "modelled"):
        found = fuzz_histories.analysed(path, AnalyzeOptions(evidence=evidence))
        assert found in test_hostile.OUTCOMES | fuzz_histories.OUTCOMES


def test_a_short_run_of_the_fuzzer(tmp_path: Path) -> None:
    """`make fuzz` does the same for longer, each time with another seed; these cases never change."""
    command = [sys.executable, "-m", "tests.fuzz_captures", "--cases", "40", "--seed", "1"]
    done = subprocess.run([*command, "--seconds", "600", "--keep", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 1: 40 cases, ")


def test_the_numbers_that_readers_take_are_found() -> None:
    """Of a trace.dat, every size and count of its head; of a perf.data, the places of its sections."""
    content = test_hostile.small(6)
    found = {at for at, _, _ in fuzz_captures.numbers_in(content)}
    for text in (b"header_page\0", b"header_event\0", b"ksmprobe\0"):
        assert content.index(text) + len(text) in found
    perf = fuzz_captures.test_perf_hostile.small("file")
    assert {8, 16, 24, 32, 40, 48} <= {at for at, _, _ in fuzz_captures.numbers_in(perf)}


def test_limits_stop_what_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever() -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz_captures, "SECONDS", 0.05)
    with pytest.raises(fuzz_captures.TooSlow), fuzz_captures.limits():
        forever()
    monkeypatch.setattr(fuzz_captures, "MEMORY_BYTES", 1 << 26)
    with pytest.raises(MemoryError), fuzz_captures.limits():
        bytearray(1 << 28)
    assert len(bytearray(1 << 28)) == 1 << 28


def test_memory_that_a_file_must_not_take_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(path: Path, content: bytes) -> str:
        return "whole" if bytearray(b"x" * (1 << 26)) else ""

    content = test_hostile.small()
    assert fuzz_captures.check(tmp_path / "case", content) == "whole"
    monkeypatch.setattr(test_hostile, "survives", greedy)
    assert "touched" in fuzz_captures.check(tmp_path / "case", content)


@pytest.mark.parametrize("seed", [3, 50039, 17])
def test_histories_of_nonsense_are_analysed(tmp_path: Path, seed: int) -> None:
    """Found by fuzzing: 3, addresses above 2^63; 50039, mmap() returns neither an address nor an error."""
    chance = random.Random(seed)
    path = tmp_path / "case"
    path.write_bytes(fuzz_histories.history(chance))
    assert fuzz_histories.analysed(path, fuzz_histories.any_options(chance)) == "analysed"


def test_cases_differ_and_a_seed_gives_them_again() -> None:
    def cases(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        case = fuzz_captures.rebuilding(7, "zstd")
        return [case(chance) for _ in range(5)]

    assert cases(1) == cases(1)
    assert len({*cases(1), *cases(2)}) == 10
