"""Trace text line by line: heads of every dialect, what is lost, cut or odd, and text that is refused."""

from __future__ import annotations

import lzma
import random
from typing import TYPE_CHECKING, Any

import pytest

from captures import open_capture
from captures.canonical import canonical_events
from captures.text import index as text_index
from schemas.errors import CaptureError, CorruptError, UnknownFormatError
from tests.test_text_recordings import TEXT

if TYPE_CHECKING:
    from pathlib import Path

FAULT = "address=0x7fb02979b100 ip=0x7fb02962c0f7 error_code=0x14"
HEAD = "            bash-135     [001] d....   131.469012: "
INSERT = (
    "avc_insert: (anon_rmap_tree_insert+0x4/0xf0) avc=0xffff88d827e82c00 vma=0xffff88d827e84f00 "
    "anon_vma=0xffff88d820374ea0 vm_start=0x558cae76e000 vm_end=0x558cae772000"
)


def capture_of(tmp_path: Path, *lines: str | bytes, end: bytes = b"\n") -> Path:
    path = tmp_path / "trace.txt"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + end)
    return path


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    with open_capture(path) as capture:
        return canonical_events(capture)[table].to_pylist()


def quality(path: Path) -> list[dict[str, Any]]:
    with open_capture(path) as capture:
        canonical_events(capture)
        return capture.quality().to_pylist()


@pytest.mark.parametrize(
    ("head", "task", "pid", "cpu", "ts_ns"),
    [
        ("            bash-135     [000] d....   131.469012: ", "bash", 135, 0, 131_469_012_000),
        ("            bash-135     [000] d..1   131.469012: ", "bash", 135, 0, 131_469_012_000),
        ("            bash-135     [000] dNLh2.1.   131.469012: ", "bash", 135, 0, 131_469_012_000),
        ("            bash-135     [000]   131.469012: ", "bash", 135, 0, 131_469_012_000),
        ("            bash-135     (    130) [011] .....   131.469012: ", "bash", 135, 11, 131_469_012_000),
        ("            bash-135     (-------) [000] .....   131.469012: ", "bash", 135, 0, 131_469_012_000),
        ("  kworker/u8:3-9-2077    [002] .....     1.000001: ", "kworker/u8:3-9", 2077, 2, 1_000_001_000),
        (
            "         my prog-7-12    [000] .....  1752000000.000001: ",
            "my prog-7",
            12,
            0,
            1752000000000001000,
        ),
        ("  a: b-1 [7] 2.1-1234    [000] .....     0.000009: ", "a: b-1 [7] 2.1", 1234, 0, 9000),
        ("   :1234: :-> x-1234    [000] .....     0.000009: ", ":1234: :-> x", 1234, 0, 9000),
        ("          <idle>-0       [003] d.s3.   131.469012: ", None, 0, 3, 131_469_012_000),
        ("           <...>-1234    [000] .....   131.469012: ", None, 1234, 0, 131_469_012_000),
        ("         ksmload-250   [001] d....    27.735034336: ", "ksmload", 250, 1, 27_735_034_336),
        ("         ksmload-250   [001]-0x0    27.735034336: ", "ksmload", 250, 1, 27_735_034_336),
        ("         ksmload-250   [001]    27.735034: (+281)  ", "ksmload", 250, 1, 27_735_034_000),
        ("probes:          ksmload-250   [001]    27.735034: ", "ksmload", 250, 1, 27_735_034_000),
        ("         ksmload-250   [001]124603714913: ", "ksmload", 250, 1, 124603714913),
        ("    perf   472 [001]   133.393486: exceptions:", "perf", 472, 1, 133_393_486_000),
        (
            "    perf   472/473   [001]   133.393486820:          1     exceptions:",
            "perf",
            473,
            1,
            133393486820,
        ),
        ("  my prog 7   472 [001]   133.393486820:     exceptions:", "my prog 7", 472, 1, 133_393_486_820),
        ("    :485   485 [001]   133.393486820:     exceptions:", None, 485, 1, 133_393_486_820),
        ("             472 [001]   133.393486820:     exceptions:", None, 472, 1, 133_393_486_820),
        # perf script -F tid,cpu,time,event,trace (and pid): five digits fill the column
        ("27502 [001]   133.393486820:     exceptions:", None, 27502, 1, 133_393_486_820),
        ("27501/27502 [001]   133.393486820:     exceptions:", None, 27502, 1, 133_393_486_820),
    ],
)
def test_heads(head: str, task: str | None, pid: int, cpu: int, ts_ns: int, tmp_path: Path) -> None:
    path = capture_of(tmp_path, f"{head}page_fault_user: {FAULT}")
    assert rows(path, "ev_fault") == [
        {
            "seq": 0,
            "ts_ns": ts_ns,
            "cpu": cpu,
            "pid": pid,
            "is_user": True,
            "address": 0x7FB02979B100,
            "error_code": 0x14,
        }
    ]
    with open_capture(path) as capture:
        names = capture.comms()
        assert names.get(pid) == (task if pid else "<idle>")
        assert capture.event_counts() == {"exceptions:page_fault_user": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "sys_mmap(addr: 0, len: 0x2000, prot: 3, flags: 0x22, fd: 0xffffffff, off: 0)",
            {"name": "mmap", "is_exit": False, "arg1": 0x2000, "arg2": 3, "arg4": 0xFFFFFFFF, "arg5": 0},
        ),
        (
            "sys_mmap(addr: 7f0000001000, len: 10, prot: 3, flags: 22, fd: 3, off: 0)",
            {"name": "mmap", "arg0": 0x7F0000001000, "arg1": 0x10, "arg3": 0x22},
        ),
        (
            "sys_enter_mremap:     addr: 0x7f73b6883000, old_len: 0x00065000, new_len: 0x00067000, flags: "
            "0x00000001, new_addr: 0x00000000",
            {"name": "mremap", "arg0": 0x7F73B6883000, "arg2": 0x67000, "arg4": 0, "arg5": None},
        ),
        (
            'sys_execve(filename: 0x558cd72c6340 "/bin/a, b: 7", argv: 0x558cd72d41f0, envp: 0x558cd72c0020)',
            {"name": "execve", "arg0": 0x558CD72C6340, "arg1": 0x558CD72D41F0, "arg2": 0x558CD72C0020},
        ),
        (
            "sys_enter_execve:   __syscall_nr=59 filename=0x7ffe argv=0x7fff envp=0x8 __filename_val=/x/y=1",
            {"name": "execve", "arg0": 0x7FFE, "arg1": 0x7FFF, "arg2": 8, "arg3": None},
        ),
        (
            "sys_mmap(unsigned long addr: 0, unsigned long len: 0x10000, unsigned long prot: 3, unsigned "
            "long flags: 0x21, unsigned long fd: 0xffffffff, unsigned long off: 0)",
            {"name": "mmap", "arg0": 0, "arg1": 0x10000, "arg3": 0x21, "arg4": 0xFFFFFFFF, "arg5": 0},
        ),
        (
            'sys_execve(const char * filename: 0x558c "/bin/a, b: 7", const char *const * argv: 0x558d, '
            "const char *const * envp: 0x558e)",
            {"name": "execve", "arg0": 0x558C, "arg1": 0x558D, "arg2": 0x558E},
        ),
        (
            "sys_enter_execve: __syscall_nr=0x3b (59) filename=(0xffff8882622d2014) argv=0x5567b76f25c0 "
            "(93903947507136) envp=0x5567b76fe910 (93903947557136)",
            {"name": "execve", "arg0": None, "arg1": None, "arg2": None},
        ),
        (
            "sys_enter_munmap: __syscall_nr=0xb (11) addr=0x7f00 (32512) len=0x1000 (4096)",
            {"name": "munmap", "arg0": 0x7F00, "arg1": 0x1000},
        ),
        ("sys_fork()", {"name": "fork", "arg0": None, "is_exit": False}),
        ("sys_mmap -> 0x7fd1d628e000", {"name": "mmap", "is_exit": True, "ret": 0x7FD1D628E000}),
        ("sys_madvise -> 0xffffffea", {"name": "madvise", "ret": -22}),  # where a long has 4 bytes
        ("sys_mmap_pgoff -> 0xd1782000", {"name": "mmap", "ret": 0xD1782000}),
        (
            "sys_mmap_pgoff(addr: 0, len: 2000, prot: 3, flags: 2, fd: 3, pgoff: 5)",
            {"name": "mmap", "arg1": 0x2000, "arg5": 0x5000},
        ),
        ("sys_execve -> 0xfffffffffffffffe", {"name": "execve", "is_exit": True, "ret": -2}),
        ("sys_exit_brk:         0x254ea000", {"name": "brk", "is_exit": True, "ret": 0x254EA000}),
        (
            "sys_exit_brk:   __syscall_nr=12 ret=0x254ea000",
            {"name": "brk", "is_exit": True, "ret": 0x254EA000},
        ),
    ],
)
def test_system_calls(line: str, expected: dict[str, Any], tmp_path: Path) -> None:
    (found,) = rows(capture_of(tmp_path, HEAD + line), "ev_syscall")
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "table", "expected"),
    [
        (
            "set_migration_pte: addr=7fb02979b000, pte=cfffe7ffecac8c02 order=0",
            "ev_migration_pte",
            {"is_set": True, "address": 0x7FB02979B000, "pte": 0xCFFFE7FFECAC8C02, "order": 0},
        ),
        (
            "task_newtask: pid=470 comm=a b=c pid=1 clone_flags=1200000 oom_score_adj=0",
            "ev_task",
            {"kind": "newtask", "child_pid": 470, "comm": "a b=c pid=1", "clone_flags": 0x1200000},
        ),
        (
            "sched_process_fork: comm=x child_pid=3 pid=135 child_comm=my sh child_pid=470",
            "ev_task",
            {"kind": "fork", "child_pid": 470, "comm": "my sh"},
        ),
        (
            "sched_process_exit: comm=mkdir pid=470 prio=120 group_dead=true",
            "ev_task",
            {"kind": "exit", "comm": "mkdir"},
        ),
        (
            "sched_switch: kworker/0:1-mm:77 [120] R ==> my sh:470 [120]",
            "ev_switch",
            {"prev_pid": 77, "next_pid": 470},
        ),
        (
            "sched_switch: prev_comm=my sh prev_pid=470 prev_prio=120 prev_state=R+ ==> next_comm=swapper/1 "
            "next_pid=0 next_prio=120",
            "ev_switch",
            {"prev_pid": 470, "next_pid": 0},
        ),
        ("tracing_mark_write:  two  spaces ", "ev_marker", {"text": " two  spaces "}),
        ("tracing_mark_write+0x8a/0x170: two words", "ev_marker", {"text": "two words"}),
        ("print:                tracing_mark_write: a: b=c ", "ev_marker", {"text": "a: b=c "}),
        (
            "ksm_merge_with_ksm_page: ksm pfn 5 rmap_item 0xffff88d828e509c0 mm 0xffff88d82955a300 error -14",
            "ev_merge",
            {"pfn": 5, "rmap_item": 0xFFFF88D828E509C0, "mm": 0xFFFF88D82955A300, "err": -14},
        ),
        (
            "ksm_merge_with_ksm_page: pfn 1 rmap_item ffff88d828e509c0 mm ffff88d82955a300 error 0",
            "ev_merge",
            {"rmap_item": 0xFFFF88D828E509C0, "mm": 0xFFFF88D82955A300},
        ),
        (
            "exit_mmap:   mt=0xffff88d82955a340 mm=0xffff88d82955a300",
            "ev_exit_mmap",
            {"mm": 0xFFFF88D82955A300},
        ),
        (
            "mmap_lock_acquire_returned: mm=0xff3b4ef982dcdd80 memcg_path=/ write=false success=true",
            "ev_mmap_lock",
            {"mm": 0xFF3B4EF982DCDD80, "is_write": False},
        ),
        (
            "mmap_lock_acquire_returned: mm=0xff3b4ef982dcdd80 memcg_id=7 write=true success=true",
            "ev_mmap_lock",
            {"mm": 0xFF3B4EF982DCDD80, "is_write": True},
        ),
        (
            INSERT,
            "ev_avc",
            {"avc": 0xFFFF88D827E82C00, "vm_end": 0x558CAE772000, "mm": None, "is_insert": True},
        ),
        (
            "ins: (ffffffffb60ad444) avc=18446612692071032383 vma=2 anon_vma=3 lo=0xcae76e hi=0x5",
            "ev_avc",
            {"avc": 18446612692071032383, "vma": 2, "anon_vma": 3, "anon_pgoff": 0x500CAE76E},
        ),
        (
            'rmap_walk_ksm: (rmap_walk_ksm+0x4/0x1e0) folio=0x10 mapping=0x23 rmap_one_sym="a_one+0x0/0xe40" '
            'comm="x" done=0x1" done=0x7 try_lock=1 mapcount=7',
            "ev_walk",
            {
                "is_return": False,
                "stable_node": 0x20,
                "rmap_one": "a_one",
                "comm": 'x" done=0x1',
                "done": 7,
                "try_lock": True,
                "mapcount": 8,
            },
        ),
        (
            "rmap_walk_ksm_ret: (try_to_migrate+0x92/0xd0 <- rmap_walk_ksm)",
            "ev_walk",
            {"is_return": True, "folio": None, "comm": None},
        ),
        (
            "walkx:   __probe_func=ffffffffb614dbe4 __probe_ret_ip=ffffffffb60e1cf2",
            "ev_walk",
            {"is_return": True},
        ),
        (
            "set_migration_pte: addr=0x7fb02979b000 (140394) pte=0xcfffe7ffecac8c02 (-3458) order=0x9 (9)",
            "ev_migration_pte",
            {"address": 0x7FB02979B000, "pte": 0xCFFFE7FFECAC8C02, "order": 9},
        ),
        (
            "ksm_merge_with_ksm_page: ksm_page=0x0 (0) pfn=0x10 (16) rmap_item=0xffff88d828e509c0 (-13) "
            "mm=0xffff88d82955a300 (-13) err=0xfffffff2 (-14)",
            "ev_merge",
            {"pfn": 16, "rmap_item": 0xFFFF88D828E509C0, "mm": 0xFFFF88D82955A300, "err": -14},
        ),
        (
            "app: __probe_ip=0xffffffffb60ad444 (-12) ri=0x1000 (4096) addr=0x2000 (8192) mm=0x30 (48) "
            "av=0x40 (64) sn=0x50 (80) kpfn=0x60 (96)",
            "ev_append",
            {"rmap_item": 0x1000, "mm": 0x30, "stable_node": 0x50, "kpfn": 0x60},
        ),
        (
            "sched_process_exit:    comm=ARRAY[63, 61, 66, c3, a9, 00, 78] pid=28204 prio=120 group_dead=1",
            "ev_task",
            {"kind": "exit", "comm": "café"},
        ),
        (
            "page_fault_user: address=some_symbol (0x7ff200098f82) ip= (0x1) error_code=0x14",
            "ev_fault",
            {"address": 0x7FF200098F82, "error_code": 0x14},
        ),
        (
            "rm:   __probe_ip=ffffffffb61496d0 ri=0xffff88d7ca718b80 addr=0x7fdcb6488201 mm=0x1 av=0x0",
            "ev_item_remove",
            {"rmap_item": 0xFFFF88D7CA718B80, "address": 0x7FDCB6488201, "mm": 1, "head": None},
        ),
    ],
)
def test_fields(line: str, table: str, expected: dict[str, Any], tmp_path: Path) -> None:
    (found,) = rows(capture_of(tmp_path, HEAD + line), table)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("pointer", ["00000000af89bbbe", "(____ptrval____)", "(ptrval)", "af89bbbe"])
def test_a_pointer_that_is_hashed_is_never_used(pointer: str, tmp_path: Path) -> None:
    line = f"{HEAD}ksm_merge_with_ksm_page: pfn 1 rmap_item {pointer} mm 0000000078d97949 error 0"
    path = capture_of(tmp_path, line)
    assert rows(path, "ev_merge") == []
    assert [row["kind"] for row in quality(path) if "hashed" in row["effect"]] == ["unread_event"]


def test_losses_of_tracefs_and_trace_cmd(tmp_path: Path) -> None:
    def event(cpu: int, second: int) -> str:
        return f"   bash-1 [00{cpu}] ..... {second}.000000: page_fault_user: {FAULT}"

    path = capture_of(
        tmp_path,
        "# tracer: nop",
        "# entries-in-buffer/entries-written: 4/104   #P:8",
        event(0, 1),
        event(1, 2),
        "CPU:0 [LOST 42 EVENTS]",
        event(1, 3),
        event(0, 4),
        "CPU:1 [246744 EVENTS DROPPED]",
    )
    lost = [
        (row["cpu"], row["start_ns"], row["end_ns"], row["count"])
        for row in quality(path)
        if row["kind"] == "lost_events"
    ]
    second = 10**9
    assert lost == [
        (None, None, second, 100),
        (0, second, 4 * second, 42),
        (1, 3 * second, None, 246744),
    ]
    with open_capture(path) as capture:
        assert (capture.info.events_lost, capture.info.cpus) == (246886, 8)


def test_losses_of_an_instance(tmp_path: Path) -> None:
    """As trace-cmd report prints them of `extract -B fmt`; the first event of a CPU has no prefix."""
    path = capture_of(
        tmp_path,
        "cpus=2",
        "fmt: CPU:0 [57091 EVENTS DROPPED]",
        f"           <...>-28718 [000] 34094.552289: page_fault_user:      {FAULT}",
        f"fmt:         python3-28719 [000] 34094.556300: page_fault_user:      {FAULT}",
    )
    lost = [row for row in quality(path) if row["kind"] in ("lost_events", "unread_lines")]
    assert [(row["kind"], row["cpu"], row["end_ns"], row["count"]) for row in lost] == [
        ("lost_events", 0, 34_094_552_289_000, 57091)
    ]
    with open_capture(path) as capture:
        assert (capture.info.events, capture.info.events_lost) == (2, 57091)


@pytest.mark.parametrize("line", ["CPU:1 [LOST EVENTS]", "CPU:1 [EVENTS DROPPED]"])
def test_losses_without_a_number(line: str, tmp_path: Path) -> None:
    path = capture_of(tmp_path, f"{HEAD}page_fault_user: {FAULT}", line)
    assert [row["count"] for row in quality(path) if row["kind"] == "lost_events"] == [None]
    with open_capture(path) as capture:
        assert capture.info.events_lost is None


def test_losses_of_perf(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path,
        "# hostname : ksmlab",
        "# os release : 7.3.4",
        "# perf version : 6.12.107",
        "# arch : x86_64",
        "# nrcpus online : 4",
        f"perf 1 [001]     1.000000000: exceptions:page_fault_user: {FAULT}",
        "perf 1 [001]     1.500000000: PERF_RECORD_LOST lost 13",
        "perf 1 [001]     1.600000000: PERF_RECORD_EXIT(1:1):(1:1)",
        "\tffffffffb60ad444 anon_rmap_tree_insert+0x4 ([kernel.kallsyms])",
        "",
        f"perf 1 [001]     2.000000000: exceptions:page_fault_user: {FAULT}",
    )
    row, unread = quality(path)
    assert (unread["kind"], unread["severity"]) == ("no_side_band", "info")
    assert (row["kind"], row["cpu"], row["count"]) == ("lost_events", 1, 13)
    assert (row["start_ns"], row["end_ns"]) == (10**9, 2 * 10**9)
    with open_capture(path) as capture:
        info = capture.info
    assert (info.kernel_release, info.arch, info.hostname) == ("7.3.4", "x86_64", "ksmlab")
    assert (info.tool, info.cpus, info.events) == ("perf 6.12.107", 4, 2)


def test_order_is_that_of_the_file_unless_times_say_otherwise(tmp_path: Path) -> None:
    def event(cpu: int, micros: int, address: int) -> str:
        head = f"   bash-1 [00{cpu}] ..... 1.{micros:06}: "
        return f"{head}page_fault_user: address=0x{address:x} ip=0x1 error_code=0x0"

    path = capture_of(tmp_path, event(1, 5, 1), event(0, 5, 2), event(1, 5, 3))
    assert [row["address"] for row in rows(path, "ev_fault")] == [1, 2, 3]
    assert [row["severity"] for row in quality(path)] == ["info"]
    # The files per_cpu/cpuN/trace, one after the other.
    path = capture_of(tmp_path, event(0, 5, 1), event(0, 9, 2), event(1, 4, 3), event(1, 5, 4))
    found = rows(path, "ev_fault")
    assert [row["address"] for row in found] == [3, 1, 4, 2]
    assert [row["seq"] for row in found] == [0, 1, 2, 3]
    assert [row["count"] for row in quality(path) if row["severity"] == "warning"] == [1]


def test_half_a_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    whole = f"{HEAD}page_fault_user: {FAULT}"
    path = capture_of(tmp_path, whole, whole[:-1], end=b"")
    assert len(rows(path, "ev_fault")) == 1
    assert "truncated" in {row["kind"] for row in quality(path)}
    with open_capture(path) as capture:
        assert capture.info.truncated


def test_arguments_that_cannot_be_told_apart_are_told(tmp_path: Path) -> None:
    path = capture_of(tmp_path, HEAD + "sys_mmap(0, 0x2000, 3)", HEAD + "sys_mmap -> 0x7fd1d628e000")
    assert [row["is_exit"] for row in rows(path, "ev_syscall")] == [True]
    (told,) = [row for row in quality(path) if row["kind"] == "unread_event"]
    assert "sys_enter_mmap" in told["effect"]


def test_lines_that_are_no_events_are_counted(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path,
        "# a comment",
        f"{HEAD}tracing_mark_write: first",
        "second line of the marker",
        "",
        f"{HEAD}<stack trace>",
        " => do_syscall_64",
        "##### CPU 2 buffer started ####",
        f"{HEAD}kfree <-do_exit",
    )
    assert [row["text"] for row in rows(path, "ev_marker")] == ["first"]
    (row,) = [row for row in quality(path) if row["kind"] == "unread_lines"]
    assert row["count"] == 1
    assert "line 3)" in row["effect"]
    with open_capture(path) as capture:
        assert capture.event_counts() == {"ftrace:print": 1, "ftrace:kernel_stack": 1, "ftrace:function": 1}


def test_lines_of_an_event_that_are_unlike_the_others_are_left_out(tmp_path: Path) -> None:
    line = f"{HEAD}{INSERT}"
    too_large = line.replace("avc=0x", "avc=0x1234")
    path = capture_of(tmp_path, line, line.replace("vma=", "wma="), too_large, line)
    assert len(rows(path, "ev_avc")) == 2
    (row,) = [row for row in quality(path) if row["kind"] == "corrupt"]
    assert (row["count"], row["severity"]) == (2, "error")
    assert "probe:avc_insert" in row["effect"]
    assert "line 2)" in row["effect"]


def test_a_head_that_tells_of_more_events(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path,
        "# entries-in-buffer/entries-written: 3/3   #P:2",
        f"{HEAD}page_fault_user: {FAULT}",
    )
    assert [row["count"] for row in quality(path) if row["kind"] == "missing_lines"] == [2]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path,
        f"{HEAD}page_fault_user: {FAULT}",
        b"  \xff\xc3a\xe2\x82\xac\0b-136 [000] ..... 131.469012: tracing_mark_write: x\xe9\0\xe2\x82\xac\xff",
        end=b"\r\n",
    )
    (found,) = rows(path, "ev_marker")
    assert found["text"] == "x?\0\N{EURO SIGN}?"
    assert rows(path, "ev_fault")[0]["error_code"] == 0x14
    with open_capture(path) as capture:
        assert capture.comms()[136] == "??a\N{EURO SIGN}\0b"


def test_a_line_that_never_ends(tmp_path: Path) -> None:
    event = f"{HEAD}page_fault_user: {FAULT}"
    path = capture_of(tmp_path, event, "x" * (text_index.MAX_LINE_BYTES + 1), event)
    with open_capture(path) as capture, pytest.raises(CorruptError) as error:
        capture.event_counts()
    assert error.value.offset == len(event) + 1
    assert "line 2" in str(error.value)


def test_too_many_names(tmp_path: Path) -> None:
    lines = [f"{HEAD}event{number}: a=1" for number in range(text_index.MAX_KEYS + 1)]
    path = capture_of(tmp_path, *lines)
    with open_capture(path) as capture, pytest.raises(CorruptError, match="too many"):
        capture.event_counts()


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (["# tracer: irqsoff", "#", "# irqsoff latency trace v1.1.5 on 7.3"], "latency-format"),
        (["# latency trace v1.1.5 on 7.3"], "latency-format"),
        (["trace-cm-248     0d....    27.736469: page_fault_user:      address=0x1"], "without -l"),
        (["    bash-135       1d...  131us : page_fault_user: address=0x1"], "latency-format"),
        (["# tracer: nop", "135 1 131469012 address=0x1"], "options/raw"),
        (["0000008700000001000000000a1b2c3d", "0000008700000001000000000a1b2c3e"], "options/hex"),
        ([" 0)   0.123 us    |  kfree();"], "nop"),
        (["    perf   472   133.393486: exceptions:page_fault_user: address=0x1"], "comm,tid,cpu,time"),
        (["hello", "world"], "trace.dat"),
    ],
)
def test_text_that_is_refused_says_what_to_do(lines: list[str], hint: str, tmp_path: Path) -> None:
    path = capture_of(tmp_path, *lines)
    with pytest.raises(UnknownFormatError) as error:
        open_capture(path)
    assert hint in error.value.hint
    assert len(str(error.value).splitlines()) == 3


def test_packed_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt.xz"
    path.write_bytes(lzma.compress(f"{HEAD}page_fault_user: {FAULT}\n".encode()))
    assert len(rows(path, "ev_fault")) == 1
    with open_capture(path) as capture:
        assert capture.info.format == "ftrace text, xz"


def test_broken_text_ends_in_an_answer_or_in_a_capture_error(tmp_path: Path) -> None:
    chance = random.Random(7)
    samples = [
        b"\n".join(lzma.decompress(path.read_bytes()).split(b"\n")[:3000:60]) + b"\n"
        for path in sorted(TEXT.glob("*.xz"))
    ]
    answered = 0
    for round_ in range(120):
        data = bytearray(samples[round_ % len(samples)])
        for _ in range(chance.randrange(1, 40)):
            at = chance.randrange(len(data))
            data[at] = chance.choice(
                (0, 10, 32, 34, 40, 45, 48, 58, 61, 91, 0xC3, 0xFF, chance.randrange(256))
            )
        del data[chance.randrange(len(data) // 2, len(data)) :]
        path = tmp_path / "broken.txt"
        path.write_bytes(data)
        try:
            with open_capture(path) as capture:
                tables = canonical_events(capture)
                assert sum(capture.event_counts().values()) == capture.info.events
                assert sum(table.num_rows for table in tables.values()) <= capture.info.events
                assert capture.quality().num_rows > 0
            answered += 1
        except CaptureError as error:
            assert len(str(error).splitlines()) == 3  # noqa: PT017 - most rounds do not raise
    assert answered > 80


def test_time_does_not_grow_with_the_square_of_a_line(tmp_path: Path) -> None:
    event = f"{HEAD}page_fault_user: {FAULT}"
    long = 400_000
    odd = [" " * long, "-1 " * long, " a=(" * long, ' a="' * long, f"{HEAD}x: {' a=(' * long}"]
    odd = [each[: text_index.MAX_LINE_BYTES - 1] for each in odd]
    path = capture_of(tmp_path, event, *odd)
    assert len(rows(path, "ev_fault")) == 1


def test_user_stacks_of_text_are_said_not_to_be_read(tmp_path: Path) -> None:
    head = "           bash-1     [001] .....     1.00000"
    fault = "page_fault_user: address=0x1 ip=0x1 error_code=0x0"
    path = capture_of(
        tmp_path,
        f"{head}1: {fault}",
        f"{head}2: <user stack trace>",
        " =>  <00007f5ac7e1f9a4>",
        f"{head}3: {fault}",
    )
    (row,) = [row for row in quality(path) if row["kind"] == "unread_event"]
    assert (row["count"], "ftrace:user_stack" in row["effect"]) == (1, True)
    assert len(rows(path, "ev_fault")) == 2
