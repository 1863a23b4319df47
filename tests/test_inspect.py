"""What `replay inspect` finds, against trace-cmd's own reader; recipes, against captures made with them."""

from __future__ import annotations

import re
import subprocess
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_tracedat_report import report, trace_cmd

from captures import open_capture
from captures.answers import Holdings, answers, kernels
from captures.questions import QUESTIONS
from captures.recipes import FOLDER, KERNELS, read_recipe, recipe_path, stock_events
from captures.recording import EXACT, TOOLS, TRUTH, steps
from captures.roles import ROLES, SYSCALLS
from replay.inspect import inspect
from schemas import TABLES

if TYPE_CHECKING:
    from captures.recipes import Probe
    from captures.roles import Role

TRACEDAT = Path(__file__).parent / "data" / "tracedat"
TRUTH_DATA = Path(__file__).parent / "data" / "truth"
TEXT = """\
# tracer: nop
#
            bash-812     [001] .....   100.000001: sched_process_exec: filename=/bin/true pid=812 old_pid=812
            bash-812     [001] .....   100.500001: sys_mprotect(start: 7f0000000000, len: 1000, prot: 1)
            bash-812     [001] .....   101.000001: sys_mprotect -> 0x0
"""
"""Text of tracefs from a kernel that it does not name, without a probe."""


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    """Rows of one table of an inspection."""
    found: list[dict[str, Any]] = inspect(path)[table].to_pylist()
    return found


def grades(path: Path) -> dict[str, str]:
    """The answer to each question."""
    return {row["question"]: row["answer"] for row in rows(path, "answer")}


@pytest.mark.parametrize(
    "name", ["kernel_6.12.dat", "lost_events.dat", "stacks.dat", "trace_cmd_3.1.dat", "two_buffers.dat"]
)
def test_counts_and_times_are_those_of_trace_cmd(name: str) -> None:
    times = defaultdict(list)
    for line in report(TRACEDAT / name):
        times[line["name"]].append(int(line["ts"].replace(".", "")))
    tables = inspect(TRACEDAT / name)
    events = {row["name"].partition(":")[2]: row for row in tables["event"].to_pylist()}
    assert {each: row["records"] for each, row in events.items()} == {
        each: len(values) for each, values in times.items()
    }
    assert {each: (row["first_ts_ns"], row["last_ts_ns"]) for each, row in events.items()} == {
        each: (min(values), max(values)) for each, values in times.items()
    }
    seconds = (max(map(max, times.values())) - min(map(min, times.values()))) / 1e9
    for each, row in events.items():
        assert row["per_second"] == pytest.approx(len(times[each]) / seconds)
    assert tables["capture"]["events"].to_pylist() == [sum(map(len, times.values()))]


def test_losses_are_those_of_trace_cmd() -> None:
    command = [trace_cmd(), "report", "-i", TRACEDAT / "lost_events.dat"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = Counter(
        (int(cpu), int(count) if count else None)
        for cpu, count in re.findall(r"^CPU:(\d+) \[(\d*) ?EVENTS DROPPED\]", printed, re.M)
    )
    assert sum(expected.values()) > 10
    lost = [each for each in rows(TRACEDAT / "lost_events.dat", "quality") if each["kind"] == "lost_events"]
    assert Counter((each["cpu"], each["count"]) for each in lost) == expected
    assert all(each["start_ns"] < each["end_ns"] for each in lost)


def test_after_losses_the_buffers_are_larger() -> None:
    commands = {row["command"] for row in rows(TRACEDAT / "lost_events.dat", "recording")}
    assert sum(" -b 65536 " in each or " -m 64M " in each for each in commands) == 2
    commands = {row["command"] for row in rows(TRACEDAT / "two_buffers.dat", "recording")}
    assert sum(" -b 16384 " in each or " -m 16M " in each for each in commands) == 2


@pytest.mark.parametrize("path", sorted(TRACEDAT.glob("*.dat*")), ids=lambda path: path.name)
def test_spans_are_of_the_events_that_occur(path: Path) -> None:
    with open_capture(path) as capture:
        spans = capture.event_spans()
        assert spans.keys() == capture.event_counts().keys()
        assert min(first for first, _ in spans.values()) == capture.info.first_ts_ns
        assert max(last for _, last in spans.values()) == capture.info.last_ts_ns
        decoded = capture.decode(spans)
    for name, (first, last) in spans.items():
        assert (first, last) == (decoded[name]["ts_ns"][0].as_py(), decoded[name]["ts_ns"][-1].as_py())


ALL = ("walks", "iterations", "ends", "misses", "causes", "counts", "time", "victims", "relatives")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # Recorded with the commands that inspect prints: all but what only checks replay; time is a fit.
        (TRACEDAT / "trace_cmd_3.1.dat", "exact exact exact exact exact not assumed exact not"),
        # No mapcount, no page_fault_kernel, no contention.
        (TRACEDAT / "two_buffers.dat", "exact exact assumed assumed assumed not assumed not not"),
        (TRACEDAT / "zstd.dat", "exact exact assumed assumed assumed exact assumed not not"),
        # The return of remove_rmap_item_from_tree was not recorded; the kernel counts itself.
        (TRACEDAT / "counting_kernel.dat", "exact assumed assumed assumed assumed exact assumed not not"),
        (TRACEDAT / "lost_events.dat", "assumed assumed assumed assumed assumed not assumed not not"),
        # No probes: migrations, as far as stock events determine them.
        (TRACEDAT / "function.dat", "not modelled modelled modelled modelled not not not not"),
        (
            TRUTH_DATA / "6.12_s11-victims_truth-tiny.dat",
            "exact exact exact assumed assumed exact assumed exact not",
        ),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_answers(path: Path, expected: str) -> None:
    assert grades(path) == dict(zip(ALL, expected.split(), strict=True))


def test_an_answer_is_no_better_than_what_it_rests_on() -> None:
    order = ["exact", "assumed", "modelled", "not"]
    for path in TRACEDAT.glob("*.dat"):
        given = grades(path)
        for question in QUESTIONS:
            for below in question.basis:
                assert order.index(given[question.name]) >= order.index(given[below])


def test_a_capture_without_walks_says_that_none_happened(tmp_path: Path) -> None:
    lines = [
        f"  ksmd-40  [000] ..... {n}.000000: {text}"
        for n, text in enumerate(
            [
                "avc_insert: (anon_vma_interval_tree_insert+0x0/0x50) avc=0x1 vma=0x2 anon_vma=0x3",
                "rmap_walk_ksm: (rmap_walk_ksm+0x0/0x290) folio=0x4 mapping=0x5",
            ],
            start=7,
        )
    ]
    (tmp_path / "trace").write_text("# tracer: nop\n#\n" + "\n".join(lines) + "\n")
    with open_capture(tmp_path / "trace") as capture:
        holdings = Holdings.of(capture)
    without = Holdings(
        **{
            **vars(holdings),
            "counts": {name: n for name, n in holdings.counts.items() if "rmap_walk" not in name},
        }
    )
    walks = {each.question.name: each for each in answers(without)}["walks"]
    assert walks.grade == "not"
    assert "ksmprobe:rmap_walk_ksm" not in walks.lacking  # it was recorded
    assert "ksmprobe:rmap_walk_ksm_ret" in walks.lacking


def test_questions_come_after_those_that_they_rest_on() -> None:
    seen: set[str] = set()
    for question in QUESTIONS:
        assert set(question.basis) <= seen
        seen.add(question.name)


def test_needs_have_a_role_and_are_recorded_by_the_recipes() -> None:
    recorded = {probe.name for kernel in KERNELS for probe in recipe((*TRUTH, "anon"), kernel)}
    for question in QUESTIONS:
        for need in (*question.ways[0], *question.helps):
            assert need.table in TABLES
            if need.column is not None:
                assert need.column in TABLES[need.table].arrow.names
            if need.table == "ev_syscall":
                continue
            in_recipe = any(fnmatchcase(name, need.event) for name in recorded)
            assert in_recipe or any(fnmatchcase(need.event, each) for each in stock_events()), need
            assert any(
                role.table == need.table and need.constants.items() <= role.constants.items()
                for role in ROLES
            ), need


def test_the_kernel_shows_in_the_probes_and_else_in_the_release(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(TEXT)
    assert {row["kernel"] for row in rows(tmp_path / "trace", "recording")} == {"6.12", "7.3"}
    for name in ("fprobe.dat", "function.dat"):
        assert {row["kernel"] for row in rows(TRACEDAT / name, "recording")} == {"7.3"}
    assert {row["kernel"] for row in rows(TRACEDAT / "kernel_6.12.dat", "recording")} == {"6.12"}
    assert kernels([], "6.12.107+deb13-cloud-amd64") == kernels([], "7.2.0") == ("6.12",)
    assert kernels([], "7.3.0-rc1") == kernels([], "8.0") == kernels([], "7.10.1") == ("7.3",)
    assert kernels([], None) == kernels([], "next") == ("6.12", "7.3")


# Recipes.


def recipe(recipes: tuple[str, ...], kernel: str) -> list[Probe]:
    """The probes of several recipes."""
    return [probe for each in recipes for probe in read_recipe(recipe_path(each, kernel))]


def role_of(probe: Probe) -> Role:
    """The role of a probe, by its function."""
    (role,) = (
        each for each in ROLES if probe.function in each.functions and each.is_return == probe.is_return
    )
    return role


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("profile", ["exact", "truth", "anon"])
def test_every_probe_has_a_role_and_all_fields_for_it(profile: str, kernel: str) -> None:
    probes = recipe((profile,), kernel)
    assert len({probe.name for probe in probes}) == len(probes)
    for probe in probes:
        role = role_of(probe)
        short = probe.name.partition(":")[2]
        assert short in role.aliases or short in role.functions
        assert (role.table.startswith("ev_obs")) is (profile == "truth")
        for column in TABLES[role.table].columns:
            source = role.columns.get(column.name)
            if column.null is None and source is not None:
                assert set(source.names) & set(probe.fields), (probe.name, column.name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_recipes_fill_every_column_that_the_kernel_has(kernel: str) -> None:
    of_7_3 = {"anon_pgoff", "linear_page_index"}
    filled: dict[str, set[str]] = defaultdict(set)
    for probe in recipe((*EXACT, "anon"), kernel):
        role = role_of(probe)
        for column, source in role.columns.items():
            if set(source.names) & set(probe.fields) and (
                not source.upper or set(source.upper) & set(probe.fields)
            ):
                filled[role.table].add(column)
    wanted = defaultdict(set)
    for role in ROLES:
        if role.functions and not role.table.startswith("ev_obs"):
            wanted[role.table] |= role.columns.keys() - {"comm"}  # saved by trace-cmd and perf themselves
    assert filled == {
        table: columns - (of_7_3 if kernel == "6.12" else set()) for table, columns in wanted.items()
    }


@pytest.mark.parametrize(
    ("kernel", "path"),
    [
        ("6.12", TRUTH_DATA / "6.12_s11-victims_truth-tiny.dat"),
        ("7.3", TRUTH_DATA / "7.3_s12-mapcount_s2-fork.dat"),
    ],
    ids=KERNELS,
)
def test_recipes_name_what_a_real_kernel_recorded(kernel: str, path: Path) -> None:
    """These captures were taken on the kernel of the recipe, with other definitions of the same probes."""
    with open_capture(path) as capture:
        recorded = {
            name: set(each.fields)
            for name, each in capture.formats.items()
            if name.startswith(("ksmprobe:", "ksmtruth:"))
        }
    probes = {probe.name: set(probe.fields) for probe in recipe(TRUTH, kernel)}
    assert probes.keys() == recorded.keys()
    assert {name: fields - recorded[name] for name, fields in probes.items() if fields - recorded[name]} == {}


def test_a_recording_by_the_printed_commands_holds_what_the_recipe_says() -> None:
    """trace_cmd_3.1.dat was recorded on Linux 6.12 with these commands, but for some events."""
    not_asked = {"ksm:ksm_enter", "ksm:ksm_remove_ksm_page", "ksm:ksm_remove_rmap_item", "sched:sched_switch"}
    not_asked |= {f"syscalls:sys_*_{call}" for call in ("map_shadow_stack", "shmget", "userfaultfd")}
    with open_capture(TRACEDAT / "trace_cmd_3.1.dat") as capture:
        for probe in recipe(EXACT, "6.12"):
            own = [each for each in capture.formats[probe.name].fields if not each.startswith("__probe_")]
            assert tuple(own) == probe.fields
        for pattern in set(stock_events()) - not_asked:
            assert any(fnmatchcase(name, pattern) for name in capture.formats), pattern


def test_every_stock_event_with_a_role_is_recorded_once() -> None:
    patterns = stock_events()
    # Written by user space; comes with an option; of kernels that count; one a fault, for who wants it.
    elsewhere = {"ftrace:print", "ftrace:user_stack", "ksm:ksm_rmap_loop", "ksm:ksm_rmap_walk"}
    elsewhere |= {"mmap_lock:mmap_lock_acquire_returned"}
    wanted = {name for role in ROLES for name in role.tracepoints if not name.startswith("perf:")} - elsewhere
    wanted |= {f"syscalls:sys_{way}_{call}" for call in SYSCALLS for way in ("enter", "exit")}
    matched = {name: [each for each in patterns if fnmatchcase(name, each)] for name in wanted}
    assert {name: found for name, found in matched.items() if len(found) != 1} == {}
    assert {each for found in matched.values() for each in found} == set(patterns)


def test_every_file_of_the_folder_is_used() -> None:
    files = {recipe_path(profile, kernel) for profile in ("exact", "truth", "anon") for kernel in KERNELS}
    assert set(FOLDER.iterdir()) == files | {FOLDER / "stock.events"}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("recipes", [EXACT, TRUTH], ids=["exact", "truth"])
def test_commands_do_in_a_shell_what_they_say(
    recipes: tuple[str, ...], kernel: str, tool: str, tmp_path: Path
) -> None:
    """Run the commands with a sudo that only writes down what it is given."""
    (tmp_path / "sudo").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > args\n[ -p /dev/stdin ] && cat > in\n:')
    (tmp_path / "sudo").chmod(0o755)
    define, record, remove = (step.command for step in steps(kernel, tool, recipes))

    def run(command: str) -> list[str]:
        subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True
        )
        return (tmp_path / "args").read_text().splitlines()

    into = ["sh", "-c", "cat >> /sys/kernel/tracing/dynamic_events"]
    assert run(define) == into
    definitions = [line for line in (tmp_path / "in").read_text().splitlines() if line[:1] not in ("", "#")]
    probes = recipe(recipes, kernel)
    assert [line.split()[0].partition(":")[2].replace("/", ":") for line in definitions] == [
        probe.name for probe in probes
    ]
    assert all(len(line) < 4094 for line in definitions)  # WRITE_BUFSIZE in kernel/trace/trace.c
    words = run(record)
    events = [word for option, word in pairwise(words) if option == "-e"]
    systems = dict.fromkeys(probe.name.partition(":")[0] for probe in probes)
    suffix = ":*" if tool == "perf" else ""
    assert events == [f"{system}{suffix}" for system in systems] + list(stock_events())
    assert words[:2] == [tool, "record"]
    assert run(remove) == into
    assert (tmp_path / "in").read_text().splitlines() == [f"-:{system}/" for system in systems]
