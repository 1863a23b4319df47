"""The command line: what goes to which stream, which exit code, what help shows."""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from replay import __version__
from replay.cli import commands as cli
from schemas import TABLES

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "captures" / "samples" / "split-6.12.dat"
COMMANDS = (
    "analyze", "batch", "fleet", "plot", "compare", "export", "inspect", "record", "testbench", "schema"
)  # fmt: skip
HEAVY = {"captures", "jinja2", "numpy", "plotly", "polars", "pyarrow", "reports", "zstandard"}


def replay(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "80"},
        check=False,
    )


def three_lines(text: str) -> list[str]:
    """The lines of an error; fails unless they are what, where and what to do."""
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("replay: ")
    assert all(line.startswith("  ") for line in lines[1:])
    return lines


def imported(*arguments: str) -> set[str]:
    """The packages that the command loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "replay", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.M)}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["analyze", "--help"]], ids=" ".join)
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    loaded = imported(*arguments)
    assert {"replay", "schemas", "typer"} <= loaded
    assert loaded & HEAVY == set()


def test_schema_loads_the_tables_and_nothing_else() -> None:
    assert imported("schema") & {"pyarrow", "polars", "plotly"} == {"pyarrow"}


def test_version() -> None:
    done = replay("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"replay {__version__}\n", "")


def test_help_lists_the_commands_and_the_exit_codes() -> None:
    done = replay("--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = re.findall(r"^  (\w+) {2,}[A-Z]", done.stdout.partition("Commands:")[2], re.M)
    assert listed == list(COMMANDS)
    words = " ".join(done.stdout.split())
    assert "0 ok; 1 a batch in which captures failed; 2 usage; 3 unreadable capture; 4 a table does" in words


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_is_plain_and_has_an_example(command: str) -> None:
    done = replay(command, "--help")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert f"Example: replay {command} " in done.stdout
    options = re.findall(r"^  (-[^ ].*)$", done.stdout, re.M)
    assert len(options) >= 3
    for option in options:
        assert re.search(r" {2,}[A-Z]", option), f"{option!r} has no help"


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_every_option(command: str) -> None:
    readme = (ROOT / "README.md").read_text()
    options = set(re.findall(r"--[a-z]+", replay(command, "--help").stdout)) - {"--help"}
    assert options
    assert {option for option in options if option not in readme} == set()


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["analyze"], ["analyze", "--nope"], ["schema", "--format", "xml"]],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_leaves_stdout_alone(arguments: list[str]) -> None:
    done = replay(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: replay" in done.stderr


def test_schema_lists_every_table() -> None:
    done = replay("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^  (\w+) ", done.stdout, re.M) == list(TABLES)
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


@pytest.mark.parametrize("name", TABLES)
def test_schema_describes_every_column(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.schema(name)
    text = capsys.readouterr().out
    assert re.findall(r"^  (\w+)  \(", text, re.M) == TABLES[name].arrow.names
    cli.schema(name, cli.Format.md)
    markdown = capsys.readouterr().out
    assert re.findall(r"^\| `(\w+)` \|", markdown, re.M) == TABLES[name].arrow.names
    assert {
        len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")
    } == {7}


def test_schema_as_json_is_complete() -> None:
    described = json.loads(replay("schema", "--format", "json").stdout)
    assert list(described) == list(TABLES)
    for name, table in TABLES.items():
        assert [column["name"] for column in described[name]["columns"]] == table.arrow.names
    assert described["ev_walk"]["columns"][1] == {
        "name": "ts_ns",
        "type": "int64",
        "unit": "ns",
        "null": None,
        "doc": "Time of the event, in the trace clock of the capture.",
        "source": "ring buffer record",
    }


def test_unknown_table_suggests_the_nearest() -> None:
    done = replay("schema", "wlak")
    assert (done.returncode, done.stdout) == (2, "")
    assert three_lines(done.stderr)[2] == "  did you mean 'walk'?"


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m replay schema --format json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_a_full_disk_behind_stdout_is_5() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "replay", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 5
    assert "No space left on device" in three_lines(done.stderr)[0]


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.replay").mkdir()
    done = replay("analyze", "a", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert three_lines(done.stderr)[0] == "replay: will not overwrite without --force: a.replay"


def test_force_replaces_only_what_replay_wrote(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = replay("analyze", "a", "-o", tmp_path, "--force")
    assert (done.returncode, done.stdout) == (5, "")
    assert "will not replace what replay did not write" in three_lines(done.stderr)[0]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path: Path) -> None:
    done = replay("analyze", SAMPLE, "-o", tmp_path / "missing" / "out")
    assert (done.returncode, done.stdout) == (5, "")
    assert three_lines(done.stderr)[1] == f"  {tmp_path / 'missing'}"


@pytest.mark.parametrize("content", [None, b"", b"not a capture\n" * 99], ids=["absent", "empty", "other"])
def test_an_unreadable_capture_is_3(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.dat").write_bytes(content)
    done = replay("analyze", "bad.dat", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "bad.dat" in three_lines(done.stderr)[1]
    assert not (tmp_path / "bad.dat.replay").exists()
    debugged = replay("analyze", "bad.dat", "--debug", cwd=tmp_path)
    assert debugged.returncode == 3
    assert debugged.stderr.startswith("Traceback")
    assert debugged.stderr.endswith(done.stderr)


CUTTING = """
import os, sys
from captures import source
mapped = source._mapped
def cut(file):
    data = mapped(file)
    os.truncate(file.name, 4096)
    return data
source._mapped = cut
from replay.cli.commands import main
main()
"""


@pytest.mark.parametrize("command", ["analyze", "inspect", "export"])
@pytest.mark.parametrize(
    "name",
    [
        "tracedat/zstd.dat",
        "tracedat/version6.dat.xz",
        "perf/triple.perf.data.xz",
        "text/triple.report.txt.xz",
    ],
)
def test_a_capture_that_is_cut_while_it_is_read_is_3(name: str, command: str, tmp_path: Path) -> None:
    """The memory of a file that others make shorter is gone: the kernel sends SIGBUS."""
    source = ROOT / "tests" / "data" / name
    path = tmp_path / "cut"
    path.write_bytes(lzma.decompress(source.read_bytes()) if source.suffix == ".xz" else source.read_bytes())
    options = ["--to", "csv", "-o", "csv"] if command == "export" else []
    done = subprocess.run(
        [sys.executable, "-c", CUTTING, command, path, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 3, done.stderr
    assert three_lines(done.stderr)[0] == "replay: the capture was cut while it was read"
    assert three_lines(done.stderr)[1].endswith("as at the beginning, found 4096 bytes")


def test_any_name_of_a_file(tmp_path: Path) -> None:
    """Also one that is not UTF-8, and that would write to the terminal."""
    name = "new\nline\x1b[2J\udcff.dat"
    shutil.copy(SAMPLE, tmp_path / name)
    analyzed = replay("analyze", name, cwd=tmp_path)
    inspected = replay("inspect", name, "--format", "json", cwd=tmp_path)
    compared = replay("compare", f"{name}.replay", name, cwd=tmp_path)
    assert [each.returncode for each in (analyzed, inspected, compared)] == [0, 0, 0], analyzed.stderr
    shown = r"new\nline\x1b[2J\udcff.dat"
    assert f"capture {shown}, " in analyzed.stdout
    assert f"A: {shown}, " in compared.stdout
    assert json.loads(inspected.stdout)["capture"]["path"] == "new\nline\x1b[2J\\udcff.dat"
    for each in (analyzed, inspected, compared):
        assert "\x1b" not in each.stdout + each.stderr


def test_analyze_writes_what_it_prints(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path)
    done = replay("analyze", SAMPLE.name, "--format", "json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"wrote {SAMPLE.name}.replay\n")
    folder = tmp_path / f"{SAMPLE.name}.replay"
    assert (folder / "summary.json").read_text() == done.stdout
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.txt", "summary.json", "tables"}
    for path in (folder / "tables").iterdir():
        read = pq.read_table(path)
        assert TABLES[path.stem].check(read).num_rows == read.num_rows
        assert (
            read.schema.metadata[b"replay.command"] == f"replay analyze {SAMPLE.name} --format json".encode()
        )
        assert read.schema.metadata[b"replay.version"] == __version__.encode()


def test_analyze_again_with_force_gives_the_same_files(tmp_path: Path) -> None:
    first = replay("analyze", SAMPLE, "-o", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    again = replay("analyze", SAMPLE, "-o", tmp_path / "out", "--force")
    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout == first.stdout
    for name in ("report.txt", "summary.json"):
        assert (tmp_path / "out" / name).read_bytes() == before[name]


def test_an_unknown_strategy_is_2(tmp_path: Path) -> None:
    done = replay("analyze", SAMPLE, "--strategy", "linaer", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "linaer" in three_lines(done.stderr)[0]


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (ZeroDivisionError("by\nzero"), 70)],
    ids=["ctrl-c", "bug"],
)
def test_what_is_raised_inside_becomes_an_exit_code(
    raised: BaseException,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def analyze(*_: object) -> None:
        raise raised

    monkeypatch.setattr("replay.pipeline.analyze", analyze)
    monkeypatch.setattr(sys, "argv", ["replay", "analyze", "a.dat", "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (code, "")
    if code == 70:
        assert three_lines(printed.err)[0] == r"replay: error in replay itself: ZeroDivisionError: by\nzero"
    else:
        assert printed.err == ""
