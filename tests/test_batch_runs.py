"""Runs of ``replay batch`` that are stopped or killed: what comes out is what an undisturbed run gives."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from distributed import Client

from schemas.fleet import STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
TRUTH = ROOT / "tests" / "data" / "truth"
NAMES = ("s6-fleet_f01-s1", "s6-fleet_f03-s1", "s6-fleet_f06-s2", "s4-holes_truth", "s1-small_triple")
MORE = ("s12-mapcount_s4-holes", "s12-mapcount_s3-mremap")
MISCHIEVOUS = """
from replay.batch import process as batch_process
batch_process.START = batch_process.START.replace("; from", "; import tests.mischief; from", 1)
from replay.cli.commands import main
main()
"""
"""A program as ``replay`` that does not come to the end of ``sleep.dat`` (tests/mischief.py)."""

DEADLINE_S = 300.0
"""When something hangs; a busy machine may take long."""


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight good captures, one twice, and one that is none; ``sleep.dat`` is done last."""
    folder = tmp_path_factory.mktemp("work") / "captures"
    folder.mkdir()
    for name in (*NAMES, *MORE):
        shutil.copy(TRUTH / f"7.3_{name}.dat", folder)
    shutil.copy(TRUTH / "7.3_s4-holes_truth.dat", folder / "zz-copy.dat")
    shutil.copy(TRUTH / "7.3_s7-fileprivate_truth.dat", folder / "sleep.dat")
    (folder / "none.dat").write_text("no capture\n")
    return folder


def command(out: str, *more: str, program: Sequence[str] = ("-m", "replay")) -> list[str]:
    return [sys.executable, *program, "batch", "captures", "-o", out, "--jobs", "2", *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(folder: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(out, *more), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def start(folder: Path, out: str, **more: str) -> subprocess.Popen[bytes]:
    """Start a batch that does not end by itself."""
    return subprocess.Popen(
        command(out, program=("-c", MISCHIEVOUS)),
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def results(out: Path) -> list[Path]:
    return [path for path in out.glob("*") if re.fullmatch(r"[0-9a-f]{12}", path.name)]


def begun(out: Path) -> bool:
    """Whether a capture is under way."""
    return any(out.glob(".batch/*/unit-*"))


def contents(out: Path) -> dict[str, object]:
    """Everything in the folder of a batch, but times and memory, which differ from run to run.

    The name of the folder, which is in its texts, is left out: it is one that is found nowhere else, and as
    long as the others, because texts wrap.
    """
    found: dict[str, object] = {}
    name = out.name.encode()
    for path in sorted(out.rglob("*")):
        key = path.relative_to(out).as_posix()
        if path.is_dir() or key == "captures.txt":
            continue
        if key == "captures.parquet":
            found[key] = pq.read_table(path).drop_columns(["seconds", "peak_bytes"]).to_pylist()
        elif path.name == "result.json":
            kept = json.loads(path.read_text())
            del kept["outcome"]["seconds"], kept["outcome"]["peak_bytes"]
            found[key] = kept
        else:
            found[key] = path.read_bytes().replace(name, b"OUT")
    return found


def processes(mark: str) -> list[int]:
    """Processes that have ``mark`` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def undisturbed(captures: Path) -> dict[str, object]:
    done = run(captures.parent, "qzq-a")
    assert done.returncode == 1
    return contents(captures.parent / "qzq-a")


def test_what_an_undisturbed_run_says(captures: Path, undisturbed: dict[str, object]) -> None:
    done = run(captures.parent, "qzq-a")
    assert done.returncode == 1
    assert done.stdout == (captures.parent / "qzq-a" / "report.txt").read_text()
    assert done.stderr.splitlines() == [
        "failed: captures/none.dat: this text cannot be read as a capture",
        "wrote qzq-a/captures.parquet",
        "replay: 1 of 10 captures failed",
        "  qzq-a/captures.parquet",
        "  the table lists each capture with the cause",
    ]
    rows = undisturbed["captures.parquet"]
    assert isinstance(rows, list)
    assert Counter(row["status"] for row in rows) == {"ok": 8, "failed": 1, "skipped": 1}
    assert len(results(captures.parent / "qzq-a")) == 9
    assert contents(captures.parent / "qzq-a") == undisturbed


def test_killed_at_random_moments_and_run_again(captures: Path, undisturbed: dict[str, object]) -> None:
    out = captures.parent / "qzq-b"
    mark = f"REPLAY_TEST={uuid.uuid4()}"
    when = random.Random(7)
    progress = []
    for last in (*[False] * 7, True):
        batch = start(captures.parent, "qzq-b", REPLAY_TEST=mark.partition("=")[2])
        until(lambda wanted=8 if last else 0: begun(out) and len(results(out)) >= wanted)
        time.sleep(when.uniform(0.0, 1.5))
        batch.kill()
        batch.wait()
        until(lambda: not processes(mark))  # the workers go with it, also in the middle of a capture
        progress.append(len(results(out)))
        for result in results(out):
            assert (result / "result.json").is_file()
    assert progress == sorted(progress)
    assert begun(out)
    assert run(captures.parent, "qzq-b").returncode == 1
    assert list((out / ".batch").iterdir()) == []
    assert contents(out) == undisturbed


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_stopped_by_a_signal_with_the_manifest_written(
    captures: Path, undisturbed: dict[str, object], number: signal.Signals, code: int
) -> None:
    out = captures.parent / f"qz-{number.value:02}"
    mark = f"REPLAY_TEST={uuid.uuid4()}"
    batch = start(captures.parent, out.name, REPLAY_TEST=mark.partition("=")[2])
    until(lambda: len(results(out)) >= 2)
    batch.send_signal(number)
    assert batch.wait(DEADLINE_S) == code
    assert processes(mark) == []
    rows = pq.read_table(out / "captures.parquet").to_pylist()
    assert len(rows) == 10
    count = Counter(row["status"] for row in rows)
    assert count["ok"] + count["failed"] >= 2  # those that were done by then
    assert set(count) <= {"ok", "failed", "skipped"}
    assert any(row["what"] == "the batch was stopped before it" for row in rows)
    assert list((out / ".batch").iterdir()) == []
    assert run(captures.parent, out.name).returncode == 1
    assert contents(out) == undisturbed


def test_shards_then_the_whole(captures: Path, undisturbed: dict[str, object]) -> None:
    out = captures.parent / "qzq-s"
    both = [
        subprocess.Popen(
            command("qzq-s", "--shard", f"{number}/2"),
            cwd=captures.parent,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in (1, 2)
    ]
    assert [one.communicate()[0] for one in both] == [b"", b""]
    assert sorted(one.returncode for one in both) == [0, 1]
    parts = sorted(path.name for path in out.glob("captures-*.parquet"))
    assert parts == ["captures-1-of-2.parquet", "captures-2-of-2.parquet"]
    assert sum(pq.read_table(out / part).num_rows for part in parts) == 10
    done = run(captures.parent, "qzq-s", "--format", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["captures"] == {"ok": 8, "failed": 1, "skipped": 1}
    got = contents(out)
    assert {key: value for key, value in got.items() if not key.startswith("captures-")} == undisturbed


def test_a_bar_on_a_terminal_and_only_there(captures: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    one = captures / f"7.3_{NAMES[0]}.dat"
    with os.fdopen(theirs, "wb") as terminal:
        batch = subprocess.Popen(
            [sys.executable, "-m", "replay", "batch", str(one), "-o", "out"],
            cwd=tmp_path,
            env=environment(COLUMNS="100"),
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    stdout, _ = batch.communicate()
    assert batch.returncode == 0
    assert re.search(rb"\r\x1b\[K\[#{24}\] 1/1 captures, 0\.0/0\.0 MB, 0 failed\r\n", said)
    assert b"\x1b" not in stdout


def test_the_statuses_are_described() -> None:
    assert list(STATUS) == ["ok", "partial", "failed", "crashed", "timeout", "skipped"]


def address_in(file: Path) -> str:
    """Where the scheduler that wrote the file listens; empty while it has not written all of it."""
    text = file.read_text() if file.exists() else ""
    return str(json.loads(text)["address"]) if text.endswith("\n}") else ""


@pytest.fixture
def cluster(captures: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, each a process, over TCP on the loopback interface."""
    folder = captures.parent / "dask"
    folder.mkdir()
    where = folder / "scheduler.json"
    here = ("--host", "127.0.0.1", "--no-dashboard")
    with ExitStack() as stack:

        def dask(kind: str, *arguments: str) -> subprocess.Popen[bytes]:
            with (folder / f"{kind}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments],
                    cwd=captures.parent,
                    env=environment(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        dask("scheduler", *here, "--port", "0", "--scheduler-file", str(where))
        until(lambda: address_in(where) != "")
        address = address_in(where)
        workers = [dask("worker", address, *here, "--nthreads", "1", "--no-nanny") for _ in range(2)]
        yield address, workers


def test_a_cluster_that_loses_a_worker_loses_nothing(
    captures: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    assert address.startswith("tcp://127.0.0.1:")
    out = captures.parent / "qzq-d"
    absolute = [
        str(captures) if word == "captures" else word for word in command(str(captures.parent / "qzq-e"))
    ]
    subprocess.run(absolute, cwd="/", env=environment(), capture_output=True, check=False)
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=DEADLINE_S)
    batch = subprocess.Popen(
        command("qzq-d", "--scheduler", address),
        cwd=captures.parent,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: len(results(out)) >= 2)
    workers[0].kill()
    _, stderr = batch.communicate(timeout=DEADLINE_S)
    assert batch.returncode == 1, stderr.decode()
    assert workers[0].poll() is not None
    assert contents(out) == contents(captures.parent / "qzq-e")


def test_a_scheduler_that_is_not_there_is_wrong_usage(captures: Path) -> None:
    done = run(captures.parent, "nowhere", "--scheduler", "tcp://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no scheduler answers" in done.stderr
    assert not (captures.parent / "nowhere").exists()
