"""A batch: every capture gets its own fate, runs continue what runs began, one bad capture hurts no other."""

from __future__ import annotations

import fcntl
import json
import lzma
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import replay
from replay.batch import process as batch_process
from replay.batch.inputs import captures, share
from replay.batch.job import Job, Limits, Outcome
from replay.batch.process import run_isolated
from replay.batch.whole import BatchOptions, BatchResult, run_batch
from replay.batch.words import died
from replay.options import AnalyzeOptions
from schemas import TABLES
from schemas.errors import OutputError, UsageError

ROOT = Path(__file__).resolve().parent.parent
TRUTH = ROOT / "tests" / "data" / "truth"
TRACEDAT = ROOT / "tests" / "data" / "tracedat"
SMALL = [TRUTH / f"7.3_{name}.dat" for name in ("s6-fleet_f01-s1", "s6-fleet_f03-s1", "s4-holes_truth")]
TWO_JOBS = BatchOptions(jobs=2)


def run(out: Path, *paths: Path | str, options: BatchOptions = TWO_JOBS) -> BatchResult:
    return run_batch([str(path) for path in paths], str(out), options)


def by_name(result: BatchResult) -> dict[str, Outcome]:
    return {Path(outcome.path).stem: outcome for outcome in result.outcomes}


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A folder with three good captures."""
    folder = tmp_path / "captures"
    folder.mkdir()
    for path in SMALL:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def mischief(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_process.WORKERS.stop()
    monkeypatch.setattr(
        batch_process, "START", batch_process.START.replace("; from", "; import tests.mischief; from", 1)
    )
    monkeypatch.syspath_prepend(str(ROOT))


def test_each_capture_gets_what_analyze_gives(fleet: Path, tmp_path: Path) -> None:
    paths = sorted(fleet.iterdir())
    result = run(tmp_path / "out", *paths)
    assert [outcome.path for outcome in result.outcomes] == list(map(str, paths))
    assert {outcome.status for outcome in result.outcomes} == {"ok"}
    for path, outcome in zip(paths, result.outcomes, strict=True):
        assert outcome.result is not None
        folder = tmp_path / "out" / outcome.result
        documents = {"report.html", "report.txt", "summary.json", "tables", "result.json"}
        assert {entry.name for entry in folder.iterdir()} == documents
        for name, table in replay.analyze(path).tables.items():
            assert pq.read_table(folder / "tables" / f"{name}.parquet").equals(table), name
        assert outcome.events == json.loads((folder / "summary.json").read_text())["capture"]["events"]
        assert f"{folder}/report.html" in (folder / "report.txt").read_text().replace("\n  ", "")


def test_manifest_has_a_row_for_every_input(fleet: Path, tmp_path: Path) -> None:
    broken = fleet / "broken.dat"
    broken.write_bytes(SMALL[0].read_bytes()[:5000])
    (fleet / "text.dat").write_text("no capture\n" * 9)
    shutil.copy(SMALL[1], fleet / "zz-copy.dat")
    shutil.copy(TRACEDAT / "fprobe.dat", fleet)
    result = run(tmp_path / "out", *sorted(fleet.iterdir()), fleet / "absent.dat")
    got = by_name(result)
    status = {name: outcome.status for name, outcome in got.items()}
    assert status == {
        "7.3_s4-holes_truth": "ok",
        "7.3_s6-fleet_f01-s1": "ok",
        "7.3_s6-fleet_f03-s1": "ok",
        "broken": "failed",
        "fprobe": "ok",
        "text": "failed",
        "zz-copy": "skipped",
        "absent": "failed",
    }
    assert got["text"].error == "UnknownFormatError"
    assert got["absent"].sha256 is None
    assert got["zz-copy"].what == f"the same bytes as {got['7.3_s6-fleet_f03-s1'].path}"
    assert got["zz-copy"].result == got["7.3_s6-fleet_f03-s1"].result
    assert got["broken"].where is not None
    assert str(broken) in got["broken"].where
    table = TABLES["captures"].check(pq.read_table(tmp_path / "out" / "captures.parquet"))
    assert table.to_pylist() == [outcome.row() for outcome in result.outcomes]
    text = (tmp_path / "out" / "captures.txt").read_text()
    assert text.startswith("8 captures\n")
    assert all(outcome.path in text for outcome in result.outcomes)


def test_a_capture_that_is_cut_off_is_partial(tmp_path: Path) -> None:
    whole = lzma.decompress((TRACEDAT / "version6.dat.xz").read_bytes())
    for name, content in (("whole", whole), ("cut", whole[:-40960])):
        (tmp_path / f"{name}.dat").write_bytes(content)
    got = by_name(run(tmp_path / "out", *sorted(tmp_path.glob("*.dat"))))
    assert {name: outcome.status for name, outcome in got.items()} == {"whole": "ok", "cut": "partial"}
    assert (got["cut"].events or 0) < (got["whole"].events or 0)


def test_the_same_command_again_analyses_nothing(fleet: Path, tmp_path: Path) -> None:
    (fleet / "text.dat").write_text("no capture\n")
    paths = sorted(fleet.iterdir())
    first = run(tmp_path / "out", *paths)
    assert all(outcome.fresh for outcome in first.outcomes)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*/*")}
    again = run(tmp_path / "out", *paths)
    assert not any(outcome.fresh for outcome in again.outcomes)
    assert [one.row() for one in again.outcomes] == [one.row() for one in first.outcomes]
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*/*")}
    assert {p: t for p, t in after.items() if ".batch" not in p.parts} == {
        p: t for p, t in before.items() if ".batch" not in p.parts
    }


def test_what_a_result_depends_on_makes_it_old(fleet: Path, tmp_path: Path) -> None:
    path = fleet / SMALL[0].name
    kept = run(tmp_path / "out", path).outcomes[0]
    moved = fleet / "moved.dat"
    path.rename(moved)
    assert not run(tmp_path / "out", moved).outcomes[0].fresh
    only_addr = BatchOptions(analyze=AnalyzeOptions(strategies=("addr",)))
    assert run(tmp_path / "out", moved, options=only_addr).outcomes[0].fresh
    assert run(tmp_path / "out", moved).outcomes[0].fresh
    assert not run(tmp_path / "out", moved).outcomes[0].fresh
    assert run(tmp_path / "out", moved, options=BatchOptions(force=True)).outcomes[0].fresh
    assert kept.result is not None
    note = tmp_path / "out" / kept.result / "result.json"
    note.write_text(note.read_text().replace(replay.__version__, "0.0.1"))
    assert run(tmp_path / "out", moved).outcomes[0].fresh
    moved.write_bytes(SMALL[1].read_bytes())
    changed = run(tmp_path / "out", moved).outcomes[0]
    assert (changed.fresh, changed.status) == (True, "ok")
    assert changed.result != kept.result


def test_failures_are_tried_again_when_asked_to(fleet: Path, tmp_path: Path) -> None:
    (fleet / "text.dat").write_text("no capture\n")
    paths = sorted(fleet.iterdir())
    run(tmp_path / "out", *paths)
    again = run(tmp_path / "out", *paths, options=BatchOptions(retry_failed=True))
    assert {name: one.fresh for name, one in by_name(again).items() if one.fresh} == {"text": True}


def test_two_captures_with_one_name_are_told_apart(fleet: Path, tmp_path: Path) -> None:
    """A result that is of another capture whose hash begins alike is never given, nor overwritten."""
    kept = run(tmp_path / "out", fleet / SMALL[0].name).outcomes[0]
    assert kept.result is not None
    note = tmp_path / "out" / kept.result / "result.json"
    note.write_text(note.read_text().replace(str(kept.sha256), str(kept.sha256)[:12] + "0" * 52))
    before = note.read_bytes()
    (outcome,) = run(tmp_path / "out", fleet / SMALL[0].name).outcomes
    assert (outcome.status, outcome.error) == ("failed", "OutputError")
    assert note.read_bytes() == before


@pytest.mark.usefixtures("mischief")
def test_whatever_a_capture_does_the_others_are_analysed(fleet: Path, tmp_path: Path) -> None:
    names = ("segfault", "exit", "hog", "memoryerror", "abort", "unlucky", "bug")
    sources = [path for path in sorted(TRUTH.glob("*.dat")) if path not in SMALL]
    for name, source in zip(names, sources, strict=False):
        shutil.copy(source, fleet / f"{name}.dat")
    options = BatchOptions(jobs=2, limits=Limits(memory_bytes=1 << 30))
    got = by_name(run(tmp_path / "out", *sorted(fleet.glob("*.dat")), options=options))
    said = {name: (one.status, one.error) for name, one in got.items()}
    assert said == {
        **{path.stem: ("ok", None) for path in SMALL},
        "segfault": ("crashed", "Crash"),
        "exit": ("crashed", "Crash"),
        "hog": ("crashed", "OutOfMemory"),
        "memoryerror": ("crashed", "OutOfMemory"),
        "abort": ("crashed", "OutOfMemory"),
        "unlucky": ("ok", None),
        "bug": ("failed", "InternalError"),
    }
    assert got["segfault"].what == "the process died of SIGSEGV"
    assert got["segfault"].where == "Fatal Python error: Segmentation fault"
    assert got["exit"].what == "the process ended with exit code 7"
    assert got["abort"].where == "memory allocation of 123456789 bytes failed"
    assert got["hog"].what is not None
    assert "--memory 1024 MiB" in got["hog"].what
    assert 1 << 30 < (got["hog"].peak_bytes or 0) < 2 << 30
    kept = by_name(run(tmp_path / "out", *sorted(fleet.glob("*.dat")), options=options))
    assert not any(outcome.fresh for outcome in kept.values())
    assert {name: (one.status, one.error) for name, one in kept.items()} == said


@pytest.mark.usefixtures("mischief")
def test_a_capture_that_takes_too_long_is_given_up(fleet: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", *sorted(fleet.iterdir()))  # done before, however busy the machine is
    (fleet / "sleep.dat").write_bytes((TRUTH / "7.3_s1-small_triple.dat").read_bytes())
    options = BatchOptions(jobs=2, limits=Limits(seconds=8))
    for fresh in (True, False):
        got = by_name(run(tmp_path / "out", *sorted(fleet.iterdir()), options=options))
        assert {name: (one.status, one.error) for name, one in got.items()} == {
            **{path.stem: ("ok", None) for path in SMALL},
            "sleep": ("timeout", "Timeout"),
        }
        assert [name for name, one in got.items() if one.fresh] == ["sleep"] * fresh
        assert (got["sleep"].seconds or 0) >= 8


def test_the_oom_killer_is_named() -> None:
    assert died(-9, "", oom_killer=True).error == "OutOfMemory"
    assert died(-9, "", oom_killer=False).what == "the process was killed (SIGKILL), by whom is not known"


def test_any_executor_will_do(fleet: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        paths = [str(path) for path in sorted(fleet.iterdir())]
        result = run_batch(paths, str(tmp_path / "out"), TWO_JOBS, executor=executor, slots=1)
    assert {outcome.status for outcome in result.outcomes} == {"ok"}


def test_a_worker_has_its_share_of_the_cpus(fleet: Path, tmp_path: Path) -> None:
    batch_process.WORKERS.stop()
    run(tmp_path / "out", fleet / SMALL[0].name, options=BatchOptions(jobs=1))
    batch_process.WORKERS.start()
    worker = batch_process.Worker(threads=1)
    environment = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    worker.close()
    assert b"POLARS_MAX_THREADS=1" in environment


def test_a_folder_of_something_else_is_left_alone(fleet: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not the folder of a batch"):
        run(fleet, SMALL[0])
    assert {path.name for path in fleet.iterdir()} == {path.name for path in SMALL}


def test_leftovers_of_dead_runs_are_removed_but_not_those_of_others(fleet: Path, tmp_path: Path) -> None:
    run(tmp_path / "out", fleet / SMALL[0].name)
    work = tmp_path / "out" / ".batch"
    for name in ("dead", "alive"):
        (work / name).mkdir()
        (work / f"{name}.lock").touch()
    with (work / "alive.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(tmp_path / "out", fleet / SMALL[0].name)
        assert sorted(path.name for path in work.iterdir()) == ["alive", "alive.lock"]


def test_inputs(fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fleet.parent)
    deep = fleet / "a" / "b"
    deep.mkdir(parents=True)
    for name in ("x.dat.zst", "y.data", "notes.txt", "[1].dat"):
        (deep / name).touch()
    (fleet / "old.replay").mkdir()
    (fleet / "old.replay" / "z.dat").touch()
    run(fleet / "out", SMALL[0])
    (fleet / "out" / "in.dat").touch()
    own = sorted(f"captures/{path.name}" for path in SMALL)
    below = ["captures/a/b/[1].dat", "captures/a/b/x.dat.zst", "captures/a/b/y.data"]
    assert captures(["captures"]) == sorted([*own, *below])
    assert captures(["captures/*.dat"]) == own
    assert captures(["captures/a/**/*.txt"]) == ["captures/a/b/notes.txt"]
    assert captures(["captures/a/b/[1].dat", "nothere"]) == ["captures/a/b/[1].dat", "nothere"]
    assert captures([own[1], "captures/*.dat"]) == [own[1], own[0], own[2]]
    (tmp_path / "list").write_text(f"{own[2]}\n\ncaptures/a/*/y.data\n")
    assert captures([own[0]], str(tmp_path / "list")) == [own[0], own[2], "captures/a/b/y.data"]
    (tmp_path / "list").write_bytes(b"one\nname\0two\0")
    assert captures([], str(tmp_path / "list")) == ["one\nname", "two"]
    (tmp_path / "empty").mkdir()
    for wrong in ([], ["captures/*.nope"], [str(tmp_path / "empty")]):
        with pytest.raises(UsageError):
            captures(wrong)


def test_shards_are_a_partition() -> None:
    paths = [str(number) for number in range(10)]
    parts = [share(paths, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(path for part in parts for path in part) == paths
    assert share(paths, None) == paths
    for wrong in ("0/3", "4/3", "1", "a/b", "-1/3", "1/0"):
        with pytest.raises(UsageError):
            share(paths, wrong)


def test_an_unknown_strategy_stops_the_batch_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="linaer"):
        run(tmp_path / "out", SMALL[0], options=BatchOptions(analyze=AnalyzeOptions(("linaer",))))
    assert not (tmp_path / "out").exists()


def test_a_process_that_kept_much_memory_is_not_used_again(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(fleet.iterdir())
    batch_process.WORKERS.stop()
    started = []

    class Counted(batch_process.Worker):
        def __init__(self, threads: int) -> None:
            started.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(batch_process, "Worker", Counted)
    run(tmp_path / "one", *paths, options=BatchOptions(jobs=1))
    assert len(started) == 1
    monkeypatch.setattr(batch_process, "TIRED_BYTES", 1)
    run(tmp_path / "three", *paths, options=BatchOptions(jobs=1))
    assert len(started) == 4


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batch_process.WORKERS.stop()
    monkeypatch.setattr(batch_process, "START", "raise SystemExit('no {path!r:.0} today {descriptor}')")
    with pytest.raises(RuntimeError, match=r"a worker process cannot start: no .*today"):
        run(tmp_path / "out", SMALL[0])


def test_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match=r"run by replay 0\.0\.0"):
        run_isolated(Job(str(SMALL[0]), "nowhere", None, version="0.0.0"))
