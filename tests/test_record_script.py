"""The script that records, run by real shells on the files of a machine: what it sets up it takes away."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captures.recipes import read_recipe, recipe_path, stock_events
from replay.record.options import Profile, RecordOptions, Tool
from replay.record.probes import Syntax, adapt, definitions
from replay.record.run import portable_script
from replay.record.script import script as make_script
from tests.fake_machine import CAPTURE, KERNELS, ROOT, Machine, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEADLINE_S = 300.0
"""When it hangs; a busy machine may take long."""
TOOLS = "sh sed grep awk tr cat tail head mktemp rm sleep dirname timeout touch mkfifo"


def script(profile: Profile = Profile.exact, **more: object) -> str:
    return portable_script(RecordOptions(Path("trace.dat"), profile=profile, **more))  # type: ignore[arg-type]


def written(on: Machine, text: str) -> Path:
    """The script as a file."""
    path = on.folder / "record.sh"
    path.write_text(text)
    return path


def run(on: Machine, text: str, *command: str, shell: str = "/bin/sh") -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [shell, written(on, text), *command],
        cwd=on.folder,
        env=on.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def record(on: Machine, *arguments: str, ignoring: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start ``replay record``; ``ignoring`` is what starts it with a signal ignored."""
    return subprocess.Popen(
        [*ignoring, sys.executable, "-m", "replay", "record", *arguments],
        cwd=on.folder,
        env=on.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ignored(name: str) -> list[str]:
    """A program that starts another one, which is given behind it, with a signal ignored."""
    return ["/bin/sh", "-c", f"trap '' {name}; exec \"$@\"", "sh"]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until_it_records(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any("recording into" in line for line in process.stderr)


def read_markers(on: Machine) -> Callable[[], str]:
    """Keep what is written to trace_marker; the result gives it."""
    pipe = os.open(on.tracefs / "trace_marker", os.O_RDWR | os.O_NONBLOCK)

    def text() -> str:
        try:
            return os.read(pipe, 1 << 16).decode()
        except BlockingIOError:
            return ""
        finally:
            os.close(pipe)

    return text


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_recording_a_command(kernel: str, shell: str, tmp_path: Path) -> None:
    on = machine(tmp_path, kernel)
    markers = read_markers(on)
    done = run(on, script(), "sh", "-c", "cat; exit 3", shell=shell)
    assert (done.returncode, done.stdout) == (3, "")
    assert (on.folder / "trace.dat").read_bytes() == CAPTURE.read_bytes()
    wanted = [each.name.replace(":", "/") for each in read_recipe(recipe_path("exact", kernel))]
    assert on.defined() == wanted
    assert on.left() == []
    assert "maps 7 7000-7f000 rw-p 00000000 00:00 0" in markers()


def test_markers_hold_the_maps_of_the_processes_that_ksm_knows(tmp_path: Path) -> None:
    on = machine(tmp_path)
    (on.folder / "proc" / "8" / "ksm_stat").write_text("ksm_rmap_items 0\nksm_merge_any: yes\n")
    # Mergeable, but not scanned yet: smaps tells, where ksm_stat does not know of that.
    for pid, says in ((10, ""), (11, "ksm_mergeable: no\n")):
        process = on.folder / "proc" / str(pid)
        process.mkdir()
        (process / "ksm_stat").write_text(f"ksm_rmap_items 0\nksm_merge_any: no\n{says}")
        (process / "smaps").write_text("VmFlags: rd wr mr mw me ac mg\n")
        (process / "maps").write_text(f"{pid}000-{pid}f00 rw-p 00000000 00:00 0\n")
    markers = read_markers(on)
    assert run(on, script(), "true").returncode == 0
    assert {line.split(" rw-p")[0] for line in markers().splitlines()} == {
        "maps 10 10000-10f00",
        "maps 7 7000-7f000",
        "maps 8 8000-8f000",
    }


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_events_that_the_kernel_has_are_recorded(kernel: str, tmp_path: Path) -> None:
    on = machine(tmp_path, kernel)
    (on.tracefs / "events" / "mmap" / "exit_mmap" / "enable").unlink()
    (on.tracefs / "events" / "mmap" / "exit_mmap").rmdir()
    read_markers(on)
    done = run(on, script(Profile.stock), "true")
    assert done.returncode == 0
    arguments = (on.folder / "arguments").read_text().split("\n")
    chosen = [value for name, value in pairwise(arguments) if name == "-e"]
    assert chosen == [each for each in stock_events() if each != "mmap:exit_mmap"]
    assert "no event mmap:exit_mmap in this kernel" in done.stderr
    assert on.defined() == []
    assert on.left() == []


def test_buffers_take_no_more_than_a_quarter_of_the_free_memory(tmp_path: Path) -> None:
    for number, (mib, kb) in enumerate(((64, 65536), (1024, 262144))):  # 2 GiB free, 2 CPUs
        on = machine(tmp_path / str(number))
        read_markers(on)
        assert run(on, script(Profile.stock, buffer_mib=mib), "true").returncode == 0
        assert f"-b\n{kb}\n" in (on.folder / "arguments").read_text()


def test_duration_ends_it_in_order(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    for command in ((), ("sleep", "100")):
        assert run(on, script(duration=0.3, force=True), *command).returncode == 0
        assert on.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["while probes are defined", "while trace-cmd starts", "while it records"])
def test_interrupted_it_leaves_nothing(number: signal.Signals, when: str, tmp_path: Path) -> None:
    on = machine(tmp_path)
    markers = read_markers(on)
    slow = {"FAKE_DELAY": "1"} if when == "while trace-cmd starts" else {}
    process = subprocess.Popen(
        ["/bin/sh", written(on, script()), "sleep", "100"],
        cwd=on.folder,
        env=on.environment | slow,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if when == "while probes are defined":
        wait_for(lambda: len(on.defined()) > 0)
    elif when == "while trace-cmd starts":
        wait_for(lambda: on.read("buffer_size_kb").strip() == "65536")
    else:
        wait_until_it_records(process)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert on.left() == []
    assert on.defined() != []
    markers()
    assert (on.folder / "trace.dat").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_replay_itself_ended_by_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    process = record(on, "--", "sleep", "100")
    wait_until_it_records(process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == (-number if number is signal.SIGKILL else 130)
    # What is there is looked at all the same.
    assert ("trace.dat: 124 walks of rmap_walk_ksm(), no event lost\n" in stderr) == (
        number is not signal.SIGKILL
    )
    wait_for(lambda: on.left() == [])


def test_sigint_ends_it_in_the_background_of_a_script_too(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    process = record(on, "--", "sleep", "100", ignoring=ignored("INT"))
    wait_until_it_records(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert on.left() == []


def test_it_outlives_its_terminal_under_nohup(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    process = record(on, "--", "sleep", "1", ignoring=ignored("HUP"))
    wait_until_it_records(process)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert on.left() == []


def test_killed_it_leaves_a_capture_and_what_clean_removes(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    process = subprocess.Popen(
        ["/bin/sh", written(on, script()), "sleep", "1"],
        cwd=on.folder,
        env=on.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until_it_records(process)
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    wait_for((on.folder / "trace.dat").exists)
    wait_for(lambda: on.read("tracing_on").strip() == "0")  # trace-cmd has ended
    assert any(each.startswith("probe ksmprobe/") for each in on.left())
    assert run(on, script(), "--clean").returncode == 0
    assert not any(each.startswith("probe ") for each in on.left())


def test_replay_checks_what_was_recorded(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    process = record(on, "--", "sh", "-c", "exit 7")
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    walks = subprocess.run(
        ["trace-cmd", "report", "-t", CAPTURE], capture_output=True, text=True, check=True
    ).stdout.count(": rmap_walk_ksm: ")
    assert walks > 0
    assert f"trace.dat: {walks:,} walks of rmap_walk_ksm(), no event lost; the command ended" in stderr
    # That capture is of the probes without mapcount.
    assert "  as replay inspect says, exact: walks, iterations, counts; assumed: ends, " in stderr
    assert on.left() == []


def test_a_capture_that_lost_events_is_an_error(tmp_path: Path) -> None:
    on = machine(tmp_path)
    read_markers(on)
    lossy = ROOT / "tests" / "data" / "tracedat" / "lost_events.dat"
    process = subprocess.Popen(
        [sys.executable, "-m", "replay", "record", "--duration", "0.2"],
        cwd=on.folder,
        env=on.environment | {"FAKE_CAPTURE": str(lossy), "FAKE_SAYS": "CPU: 0\nentries: 7\noverrun: 12"},
        stderr=subprocess.PIPE,
        text=True,
    )
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 5
    # As the script says by itself, where there is no replay.
    assert (
        "replay: the buffer lost events: record again with BUFFER_MIB=256 (--buffer), or less load" in stderr
    )
    what, where, hint = stderr.splitlines()[-3:]
    assert re.match(r"replay: the buffer lost (\d+|some) events: what follows", what)
    assert where == f"  {on.folder / 'trace.dat'}"
    assert hint.startswith("  record again with --buffer 256 or less load; see: replay inspect ")


def no_tracefs(on: Machine) -> str:
    on.tracefs.rename(on.folder / "elsewhere")
    return "no tracefs"


def not_root(on: Machine) -> str:
    (on.tracefs / "dynamic_events").chmod(0o440)
    return "no permission to trace"


def no_tool(on: Machine) -> str:
    (on.folder / "bin" / "trace-cmd").unlink()
    (on.folder / "bin" / "trace-cmd").symlink_to("/nonexistent")
    return "trace-cmd is not installed"


def probes_there(on: Machine) -> str:
    (on.tracefs / "events" / "ksmprobe").mkdir()
    return "there are probes already"


def traced_already(on: Machine) -> str:
    (on.tracefs / "set_event").write_text("sched:sched_switch\n")
    return "somebody is tracing already"


def no_function(on: Machine) -> str:
    symbols = on.folder / "proc" / "kallsyms"
    symbols.write_text(
        symbols.read_text().replace(" stable_tree_append\n", " stable_tree_append.constprop.0\n")
    )
    return "this kernel has no function stable_tree_append"


def refuses(on: Machine) -> str:
    (on.tracefs / "dynamic_events").unlink()
    (on.tracefs / "dynamic_events").symlink_to("/proc/version")  # a write to it fails
    return "the kernel refuses a probe"


def no_kprobes(on: Machine) -> str:
    refuses(on)
    readme = on.tracefs / "README"
    readme.write_text(readme.read_text().replace("place: [<module>:]<symbol>", "place: <path>"))
    return "the kernel refuses a probe"


def exists(on: Machine) -> str:
    (on.folder / "trace.dat").write_text("mine")
    return "will not overwrite without --force"


@pytest.mark.parametrize(
    "spoil",
    [no_tracefs, not_root, no_tool, probes_there, traced_already, no_function, refuses, no_kprobes, exists],
)
def test_what_is_in_the_way_is_said_in_three_lines(spoil: Callable[[Machine], str], tmp_path: Path) -> None:
    on = machine(tmp_path)
    what = spoil(on)
    environment = on.environment | {"PATH": f"{on.folder / 'bin'}:{tools(on)}"}
    # Without that capability root is like others, where a file's mode says so.
    plain = (
        ["/usr/bin/setpriv", "--bounding-set", "-dac_override"]
        if spoil is not_root and not os.getuid()
        else []
    )
    done = subprocess.run(
        [*plain, "/bin/sh", written(on, script()), "touch", "ran"],
        cwd=on.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 125
    lines = done.stderr.splitlines()
    said = next(number for number, line in enumerate(lines) if line.startswith(f"replay: {what}"))
    assert [line[:2] for line in lines[said : said + 3]] == ["re", "  ", "  "]
    assert not (on.folder / "ran").exists()
    if spoil is exists:
        assert (on.folder / "trace.dat").read_text() == "mine"
    assert ("no kprobes" in lines[said + 2]) == (spoil is no_kprobes)
    if spoil not in (no_tracefs, refuses, no_kprobes):
        assert on.left() == []


def tools(on: Machine) -> Path:
    """The programs that the script uses, without any trace-cmd."""
    folder = on.folder / "tools"
    folder.mkdir()
    for name in TOOLS.split():
        found = (Path("/usr/bin") / name, Path("/bin") / name)
        (folder / name).symlink_to(next(each for each in found if each.exists()))
    return folder


def test_fprobes_are_defined_without_a_number_where_the_kernel_takes_none(tmp_path: Path) -> None:
    fprobes = Syntax(names=True, kprobes=False)
    adapted = [adapt(each, fprobes, None) for each in definitions(Profile.exact, "6.12")]
    probes = {"6.12": [each for each in adapted if each is not None]}
    text = make_script(RecordOptions(Path("trace.dat")), probes)
    begin = "define() { # DEFINITION\n"
    assert begin in text
    newer = text.replace(begin, f'{begin}    case "$1" in f[0-9]*) return 1 ;; esac\n')
    kinds = []
    for number, each in enumerate((text, newer)):
        on = machine(tmp_path / str(number))
        read_markers(on)
        assert run(on, each, "true").returncode == 0
        lines = on.read("dynamic_events").splitlines()
        kinds.append([line.split("/")[0] for line in lines if line.endswith("%return")])
        assert sum(line.startswith("-:ksmprobe/") for line in lines) == len(adapted)
    assert kinds == [["f64:ksmprobe", "f256:ksmprobe"], ["f:ksmprobe", "f:ksmprobe"]]


def test_an_optional_function_may_lack(tmp_path: Path) -> None:
    on = machine(tmp_path)
    symbols = on.folder / "proc" / "kallsyms"
    symbols.write_text(symbols.read_text().replace(" damon_folio_young_one\n", " other\n"))
    read_markers(on)
    done = run(on, script(Profile.truth), "true")
    assert done.returncode == 0
    assert "no function damon_folio_young_one in this kernel" in done.stderr
    assert len(on.defined()) == 24 - 2
    assert on.left() == []


def test_a_recorder_that_dies_at_once(tmp_path: Path) -> None:
    on = machine(tmp_path)
    done = subprocess.run(
        ["/bin/sh", written(on, script()), "touch", "ran"],
        cwd=on.folder,
        env=on.environment | {"FAKE_DIES": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 125
    assert "trace-cmd ended before it recorded\n  trace-cmd: no space left" in done.stderr
    assert not (on.folder / "ran").exists()
    assert on.left() == []


def test_clean_removes_what_a_killed_recording_left_and_nothing_else(tmp_path: Path) -> None:
    on = machine(tmp_path)
    with (on.tracefs / "dynamic_events").open("a") as events:
        events.write("p:ksmprobe/avc_insert f a=b\nr64:ksmtruth/iter_first_ret g\np:ksmother/x h\n")
    for profile in (Profile.exact, Profile.stock):
        assert run(on, script(profile), "--clean").returncode == 0
        assert on.read("dynamic_events").split("\n")[4:6] == [
            "-:ksmprobe/avc_insert",
            "-:ksmtruth/iter_first_ret",
        ]
        assert "-:ksmother/x" not in on.read("dynamic_events")
    process = record(on, "--clean")
    process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, on.left()) == (0, ["probe ksmother/x"])


def test_print_gives_the_script_and_touches_nothing(tmp_path: Path) -> None:
    on = machine(tmp_path)
    process = record(on, "--print", "-o", "my trace.dat", "--", "sh", "-c", "echo 'a  b' > said")
    text, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stderr) == (0, "")
    assert on.read("dynamic_events") == "p:other/mine vfs_read\n"
    read_markers(on)
    path = on.folder / "record.sh"
    path.write_text(text)
    assert subprocess.run(["/bin/sh", path], cwd=on.folder, env=on.environment, check=False).returncode == 0
    assert (on.folder / "said").read_text() == "a  b\n"
    assert (on.folder / "my trace.dat").exists()


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("tool", list(Tool))
def test_scripts_are_shell_that_two_shells_understand(profile: Profile, tool: Tool) -> None:
    text = script(profile, tool=tool)
    for shell in ("/bin/sh", "/bin/bash"):
        assert subprocess.run([shell, "-n"], input=text, text=True, check=False).returncode == 0
    assert "#@" not in text
    assert len(text.encode()) < 128 * 1024  # what one argument may have
    assert text.isascii()


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_a_script_for_the_kernel_of_a_btf_needs_no_names(kernel: str) -> None:
    text = script(Profile.exact, btf=KERNELS / kernel / "vmlinux.btf")
    probes = [
        shlex.split(line)[3] for line in text.splitlines() if re.match(r"\s+probe (needed|optional) ", line)
    ]
    assert len(probes) == len(read_recipe(recipe_path("exact", kernel)))
    assert not any("->" in each for each in probes)
    assert sum("$arg" in each for each in probes) == len(probes) - 2  # the two returns have no fields


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_walks_over_ordinary_pages_are_recorded_when_asked_for(kernel: str, tmp_path: Path) -> None:
    """The probes are defined, and taken away again as all others."""
    on = machine(tmp_path, kernel)
    read_markers(on)
    keep = "cp $TRACEFS/dynamic_events $TRACEFS/kept"
    assert run(on, script(Profile.exact, anon=True), "sh", "-c", keep).returncode == 0
    probes = [line for line in on.read("kept").splitlines() if " rmap_walk_anon" in line]
    assert len(probes) == 2
    assert on.left() == []
    assert "rmap_walk_anon" not in script(Profile.exact)


def test_walks_over_ordinary_pages_take_probes(tmp_path: Path) -> None:
    on = machine(tmp_path)
    process = record(on, "--anon", "--events", "stock", "true")
    _, told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert "--anon takes probes" in told
