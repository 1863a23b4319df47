"""Raw events of any dialect become the ``ev_*`` tables: names, fields, values and what is missing."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from captures import open_capture
from captures.canonical import EVENT_TABLES, canonical_events
from schemas import TABLES
from schemas.errors import MissingEventsError
from tests.test_tracedat_report import DATA, NAMES, report, unpacked
from tests.tracedat_writer import Buffer, Kernel, TraceDat, event_format

if TYPE_CHECKING:
    from pathlib import Path

K = Kernel()
ENTRY = [("unsigned long __probe_ip", 0xFFFFFFFF81000000)]
RETURN = [("unsigned long __probe_func", 1), ("unsigned long __probe_ret_ip", 2)]
KALLSYMS = b"ffffffff81200000 t try_to_migrate_one\nffffffff81300000 T folio_not_mapped\n"
Event = tuple[str, list[tuple[str, Any]]]
"""``system:name`` and its fields: declaration and value (a str: __data_loc char[])."""


def size_of(declaration: str, kernel: Kernel) -> int:
    if "*" in declaration or re.match(r"(unsigned )?long ", declaration):
        return kernel.long_bytes
    sizes = {
        "u64": 8,
        "u32": 4,
        "s32": 4,
        "u8": 1,
        "int": 4,
        "unsigned int": 4,
        "pid_t": 4,
        "__data_loc char[]": 4,
    }
    return sizes[declaration.rpartition(" ")[0]]


def capture_of(path: Path, events: list[Event], kernel: Kernel = K, **changes: Any) -> Path:
    """A capture with one record of each event, 10 ns apart, all of pid 42 on CPU 3."""
    formats, records = [], []
    for number, (name, fields) in enumerate(events):
        system, _, short = name.partition(":")
        declared, fixed, strings = [], b"", b""
        whole = 8 + sum(size_of(each, kernel) for each, _ in fields)
        for declaration, value in fields:
            size = size_of(declaration, kernel)
            is_signed = declaration.startswith(("s32", "int", "long", "pid_t"))
            declared.append((declaration, 8 + len(fixed), size, is_signed))
            if isinstance(value, str):
                text = value.encode() + b"\0"
                fixed += kernel.u(4, len(text) << 16 | whole + len(strings))
                strings += text
            else:
                fixed += kernel.u(size, value)
        formats.append((system, event_format(short, 700 + number, declared)))
        records.append(kernel.data(10 if records else 0, kernel.common(700 + number, 42) + fixed + strings))
    changes = {"kallsyms": KALLSYMS, "cmdlines": b"42 migrator\n"} | changes
    path.write_bytes(TraceDat(formats, [Buffer({3: kernel.page(1000, records)})], kernel, **changes).build())
    return path


def tables_of(path: Path, names: list[str] | None = None) -> dict[str, list[dict[str, Any]]]:
    with open_capture(path) as capture:
        return {name: table.to_pylist() for name, table in canonical_events(capture, names).items()}


def row_of(path: Path, table: str) -> dict[str, Any]:
    """The one row of a table, without what all events have."""
    rows = tables_of(path)[table]
    assert len(rows) == 1
    assert (rows[0]["cpu"], rows[0]["pid"]) == (3, 42)
    return {key: value for key, value in rows[0].items() if key not in ("seq", "ts_ns", "cpu", "pid")}


def u64(**values: int) -> list[tuple[str, Any]]:
    return [(f"u64 {name}", value) for name, value in values.items()]


INSERTED = {
    "is_insert": True,
    "avc": 1,
    "anon_vma": 2,
    "vma": 3,
    "mm": 4,
    "vm_start": 0x5000,
    "vm_end": 0x6000,
    "vm_pgoff": 5,
    "anon_pgoff": None,
    "vm_flags": 7,
}
LONG = u64(avc=1, vma=3, anon_vma=2, vm_start=0x5000, vm_end=0x6000, vm_pgoff=5, vm_mm=4, vm_flags=7)
SHORT = u64(avc=1, av=2, vma=3, mm=4, s=0x5000, e=0x6000, pg=5, fl=7, vav=9)
PERF = u64(node=1, vma=3, anon_vma=2, vm_start=0x5000, vm_end=0x6000, vm_pgoff=5, vm_mm=4, vm_flags=7)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ksmprobe:avc_insert", LONG),
        ("k:ins", SHORT),
        ("kprobes:p_anon_vma_interval_tree_insert_0", SHORT),
        ("kprobes:p_anon_rmap_tree_insert_0", LONG),
        ("fprobes:anon_rmap_tree_insert__entry", LONG),
        ("probe:anon_vma_interval_tree_insert", PERF),
        ("probe:anon_vma_interval_tree_insert_1", PERF),
        ("mine:anon_rmap_tree_insert", LONG),
    ],
)
def test_dialects_of_an_insertion(tmp_path: Path, name: str, fields: list[tuple[str, Any]]) -> None:
    path = capture_of(tmp_path / "t.dat", [(name, ENTRY + fields)])
    assert row_of(path, "ev_avc") == INSERTED


@pytest.mark.parametrize(
    ("name", "is_return", "table", "column"),
    [
        ("ksmprobe:avc_remove", False, "ev_avc", ("is_insert", False)),
        ("k:del", False, "ev_avc", ("is_insert", False)),
        ("fprobes:anon_rmap_tree_remove__entry", False, "ev_avc", ("is_insert", False)),
        ("k:walkx", True, "ev_walk", ("is_return", True)),
        ("ksmprobe:rmap_walk_ksm_ret", True, "ev_walk", ("is_return", True)),
        ("kprobes:r_rmap_walk_ksm_0", True, "ev_walk", ("is_return", True)),
        ("fprobes:rmap_walk_ksm__exit", True, "ev_walk", ("is_return", True)),
        ("probe:rmap_walk_ksm__return", True, "ev_walk", ("is_return", True)),
        ("probe:rmap_walk_ksm", False, "ev_walk", ("is_return", False)),
        ("k:walk", False, "ev_walk", ("is_return", False)),
        ("k:rm", False, "ev_item_remove", ("is_return", False)),
        ("ksmprobe:remove_rmap_item_from_tree_ret", True, "ev_item_remove", ("is_return", True)),
        ("k:rmn", False, "ev_node_remove", ("stable_node", 9)),
        ("kprobes:p_folio_migrate_ksm_0", False, "ev_folio_migrate", ("newfolio", 8)),
    ],
)
def test_names_of_the_other_probes(
    tmp_path: Path, name: str, is_return: bool, table: str, column: tuple[str, Any]
) -> None:
    fields = u64(avc=1, anon_vma=2, vma=3, rmap_item=4, address=5, mm=6, stable_node=9, folio=7, newfolio=8)
    path = capture_of(tmp_path / "t.dat", [(name, RETURN if is_return else ENTRY + fields)])
    assert row_of(path, table)[column[0]] == column[1]
    others = {each: rows for each, rows in tables_of(path).items() if rows and each != table}
    assert others == {}


@pytest.mark.parametrize("name", ["sched:ins", "ext4:walk", "net:app", "foo:rmap_walk_ksm"])
def test_a_stock_event_of_the_same_name_is_no_probe(tmp_path: Path, name: str) -> None:
    path = capture_of(tmp_path / "t.dat", [(name, LONG + u64(stable_node=1, rmap_item=2, address=3, mm=4))])
    assert not any(tables_of(path).values())


def test_anon_page_offset_is_put_together(tmp_path: Path) -> None:
    halves = [("u32 anon_pgoff_lo", 0xFFFFFFFE), ("u32 anon_pgoff_hi", 7)]
    path = capture_of(tmp_path / "t.dat", [("ksmprobe:avc_insert", ENTRY + LONG + halves)])
    assert row_of(path, "ev_avc")["anon_pgoff"] == 0x7_FFFF_FFFE
    path = capture_of(tmp_path / "t.dat", [("k:ins", ENTRY + SHORT + [("u32 lo", 1), ("u32 hi", 0)])])
    assert row_of(path, "ev_avc")["anon_pgoff"] == 1
    path = capture_of(tmp_path / "t.dat", [("k:ins", ENTRY + SHORT + [("u32 lo", 1)])])
    assert row_of(path, "ev_avc")["anon_pgoff"] is None


def test_append(tmp_path: Path) -> None:
    fields = u64(ri=1, addr=0x7F0000001300, mm=2, av=3, sn=4, kpfn=5, len=6, idx=7)
    path = capture_of(tmp_path / "t.dat", [("k:app", ENTRY + fields)])
    assert row_of(path, "ev_append") == {
        "rmap_item": 1,
        "stable_node": 4,
        "mm": 2,
        "address": 0x7F0000001300,
        "anon_vma": 3,
        "kpfn": 5,
        "linear_page_index": 7,
    }


WALK = u64(folio=16, mapping=0xFFFF8880000000C3, done=0xFFFFFFFF81300000, invalid_vma=0)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (("__data_loc char[] rmap_one_sym", "try_to_migrate_one+0x0/0xe40"), "try_to_migrate_one"),
        (("__data_loc char[] one", "remove_migration_pte"), "remove_migration_pte"),
        (("__data_loc char[] one", "damon_folio_mkold_one+0x10/0x90 [mod]"), "damon_folio_mkold_one"),
        (("__data_loc char[] one", ""), None),
        (("u64 rmap_one_sym", 0xFFFFFFFF81200000), "try_to_migrate_one"),
        (("u64 rmap_one", 0xFFFFFFFF81200000), "try_to_migrate_one"),
        (("u64 rmap_one", 0xFFFFFFFF81200001), None),
    ],
)
def test_who_walks(tmp_path: Path, field: tuple[str, Any], name: str | None) -> None:
    fields = [*ENTRY, *WALK, field, ("u8 try_lock", 1), ("s32 mapcount", -1)]
    path = capture_of(tmp_path / "t.dat", [("ksmprobe:rmap_walk_ksm", fields)])
    assert row_of(path, "ev_walk") == {
        "is_return": False,
        "folio": 16,
        "stable_node": 0xFFFF8880000000C0,
        "rmap_one": name,
        "done": 0xFFFFFFFF81300000,
        "invalid_vma": 0,
        "try_lock": True,
        "mapcount": 0,
        "comm": None,
    }


def test_who_walks_by_the_event_itself(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "t.dat", [("k:walk", [*ENTRY, *WALK, ("__data_loc char[] comm", "kcompactd0")])]
    )
    assert row_of(path, "ev_walk")["comm"] == "kcompactd0"
    assert row_of(path, "ev_walk")["mapcount"] is None


@pytest.mark.parametrize("kernel", [Kernel(">", 8), Kernel("<", 4), Kernel(">", 4)], ids=str)
def test_other_machines(tmp_path: Path, kernel: Kernel) -> None:
    fields = [("unsigned long __probe_ip", 1), ("unsigned long avc", 0x81234567), ("void * vma", 2)]
    fields += [("unsigned long anon_vma", 3)]
    path = capture_of(tmp_path / "t.dat", [("ksmprobe:avc_insert", fields)], kernel)
    row = row_of(path, "ev_avc")
    assert (row["avc"], row["vma"], row["anon_vma"], row["mm"]) == (0x81234567, 2, 3, None)


def test_system_calls(tmp_path: Path) -> None:
    remap = [("int __syscall_nr", 25)] + [(f"unsigned long {name}", n) for n, name in enumerate("abcde", 1)]
    execve = [
        ("int __syscall_nr", 59),
        ("const char * filename", 1 << 63),
        ("char * argv", 2),
        ("char * envp", 3),
    ]
    execve += [("__data_loc char[] __filename_val", "/bin/true")]
    moved = [("int __syscall_nr", 279), ("pid_t pid", 0), ("unsigned long nr_pages", 6)]
    path = capture_of(
        tmp_path / "t.dat",
        [
            ("syscalls:sys_enter_mremap", remap),
            ("syscalls:sys_exit_mremap", [("int __syscall_nr", 25), ("long ret", -14)]),
            ("syscalls:sys_enter_execve", execve),
            ("syscalls:sys_enter_move_pages", moved),
            ("syscalls:sys_enter_read", [("int __syscall_nr", 0)]),
        ],
    )
    rows = tables_of(path)["ev_syscall"]
    assert [(row["name"], row["is_exit"], row["ret"]) for row in rows] == [
        ("mremap", False, None),
        ("mremap", True, -14),
        ("execve", False, None),
        ("move_pages", False, None),
    ]
    arguments = [[row[f"arg{number}"] for number in range(6)] for row in rows]
    assert arguments == [
        [1, 2, 3, 4, 5, None],
        [None] * 6,
        [1 << 63, 2, 3, None, None, None],
        [0, 6, None, None, None, None],
    ]


def test_tasks(tmp_path: Path) -> None:
    def comm(name: str) -> tuple[str, str]:
        return (f"__data_loc char[] {name}", name)

    path = capture_of(
        tmp_path / "t.dat",
        [
            ("task:task_newtask", [("pid_t pid", 77), comm("comm"), ("u64 clone_flags", 0x100)]),
            (
                "sched:sched_process_fork",
                [comm("parent_comm"), ("pid_t parent_pid", 42), comm("child_comm"), ("pid_t child_pid", 77)],
            ),
            ("sched:sched_process_exec", [comm("filename"), ("pid_t pid", 42), ("pid_t old_pid", 42)]),
            ("sched:sched_process_exit", [comm("comm"), ("pid_t pid", 42)]),
            ("sched:sched_process_free", [comm("comm"), ("pid_t pid", 77)]),
        ],
    )
    rows = tables_of(path)["ev_task"]
    assert [(row["kind"], row["pid"], row["child_pid"], row["clone_flags"], row["comm"]) for row in rows] == [
        ("newtask", 42, 77, 0x100, "comm"),
        ("fork", 42, 77, None, "child_comm"),
        ("exec", 42, None, None, None),
        ("exit", 42, None, None, "comm"),
        ("free", 42, 77, None, "comm"),
    ]


def test_marker_without_its_line_break(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    text = event_format("print", 5, [("unsigned long ip", 8, 8, 0), ("char buf[]", 16, 0, 0)])
    records = [K.data(0, K.common(5, 42) + K.u(8, 0) + each) for each in (b"one \n\0", b"two\0stale\n", b"")]
    path.write_bytes(TraceDat([], [Buffer({3: K.page(1000, records)})], ftrace=[text]).build())
    assert [row["text"] for row in tables_of(path)["ev_marker"]] == ["one ", "two", ""]


def test_missing_field_is_named(tmp_path: Path) -> None:
    lacking = [each for each in LONG if each[0] != "u64 anon_vma"]
    path = capture_of(tmp_path / "t.dat", [("ksmprobe:avc_insert", ENTRY + lacking)])
    with pytest.raises(MissingEventsError) as caught:
        tables_of(path)
    assert "ksmprobe:avc_insert lacks the field anon_vma" in caught.value.what
    assert "anon_vma or av" in str(caught.value.expected)
    assert "vm_start" in str(caught.value.found)


def test_missing_field_does_not_matter_when_another_probe_has_it(tmp_path: Path) -> None:
    poor = ("kprobes:p_anon_rmap_tree_insert_0", ENTRY)
    path = capture_of(tmp_path / "t.dat", [poor, ("ksmprobe:avc_insert", ENTRY + LONG)])
    assert row_of(path, "ev_avc") == INSERTED


def test_missing_field_of_an_event_that_does_not_occur_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    text = event_format("avc_insert", 700, [("unsigned long __probe_ip", 8, 8, 0)])
    path.write_bytes(TraceDat([("ksmprobe", text)], [Buffer({0: K.page(1, [])})]).build())
    assert not any(tables_of(path).values())


def test_field_of_another_kind_is_not_taken(tmp_path: Path) -> None:
    fields = [("__data_loc char[] vm_start", "five") if each[0] == "u64 vm_start" else each for each in LONG]
    path = capture_of(tmp_path / "t.dat", [("ksmprobe:avc_insert", ENTRY + fields)])
    assert row_of(path, "ev_avc") == INSERTED | {"vm_start": None}


def test_two_probes_on_one_function_count_once(tmp_path: Path) -> None:
    more = [("u32 anon_pgoff_lo", 5), ("u32 anon_pgoff_hi", 0)]
    events = [("k:ins", ENTRY + SHORT), ("ksmprobe:avc_insert", ENTRY + LONG + more)]
    path = capture_of(tmp_path / "t.dat", events)
    assert row_of(path, "ev_avc") == INSERTED | {"anon_pgoff": 5}


def test_only_the_tables_that_are_asked_for(tmp_path: Path) -> None:
    path = capture_of(tmp_path / "t.dat", [("k:ins", ENTRY + SHORT), ("k:walkx", RETURN)])
    filled = {name for name, rows in tables_of(path, ["ev_walk"]).items() if rows}
    assert filled == {"ev_walk"}
    with pytest.raises(ValueError, match="ev_wlak"):
        tables_of(path, ["ev_wlak"])


@pytest.mark.parametrize("name", [*NAMES, "zlib.dat"])
def test_tables_of_real_captures_keep_the_contract(name: str) -> None:
    with open_capture(DATA / name) as capture:
        tables = canonical_events(capture)
        events = capture.info.events
    assert set(tables) == set(EVENT_TABLES)
    seen: list[int] = []
    for table_name, table in tables.items():
        assert TABLES[table_name].check(table).num_rows == table.num_rows
        seq = table["seq"].to_pylist()
        assert seq == sorted(seq)
        seen += seq
    assert len(seen) == len(set(seen))
    assert 0 <= min(seen) <= max(seen) < events


RAW_NAMES = {
    "ev_avc": ("avc_insert", "avc_remove"),
    "ev_append": ("stable_tree_append",),
    "ev_item_remove": ("remove_rmap_item_from_tree", "remove_rmap_item_from_tree_ret"),
    "ev_node_remove": ("remove_node_from_stable_tree",),
    "ev_walk": ("rmap_walk_ksm", "rmap_walk_ksm_ret"),
    "ev_migration_pte": ("set_migration_pte",),
    "ev_fault": ("page_fault_user", "page_fault_kernel"),
    "ev_merge": ("ksm_merge_with_ksm_page",),
    "ev_folio_migrate": ("folio_migrate_ksm",),
    "ev_marker": ("print",),
    "ev_obs_first": ("iter_first", "iter_first_ret"),
    "ev_obs_next": ("iter_next",),
    "ev_obs_loop": ("ksm_rmap_loop",),
    "ev_obs_walk": ("ksm_rmap_walk",),
}


@pytest.mark.parametrize("name", NAMES)
def test_as_many_rows_as_trace_cmd_has_events(name: str, tmp_path: Path) -> None:
    lines = Counter(line["name"] for line in report(unpacked(DATA / name, tmp_path)))
    found = {table: len(rows) for table, rows in tables_of(DATA / name).items()}
    # One name for a tracepoint and, in some captures, for a probe: count what only the tracepoint can be.
    found["ev_migration_pte"] -= lines["remove_migration_pte"]
    assert {table: found[table] for table in RAW_NAMES} == {
        table: sum(lines[each] for each in raw) for table, raw in RAW_NAMES.items()
    }
    assert found["ev_obs_one"] == sum(count for each, count in lines.items() if each.startswith("one_"))
    calls = (
        r"sys_(enter|exit)_"
        r"(mmap|munmap|mprotect|madvise|mremap|brk|move_pages|prctl|clone3?|v?fork|execve|exit.*)$"
    )
    assert found["ev_syscall"] == sum(count for each, count in lines.items() if re.match(calls, each))


def test_values_that_trace_cmd_prints(tmp_path: Path) -> None:
    """Insertions and walks of a 7.3 kernel, value for value from the printed fields."""
    printed: dict[str, list[dict[str, str]]] = {}
    for line in report(DATA / "zstd.dat"):
        fields = dict(re.findall(r"(\w+)=(\S*)", line["fields"]))
        printed.setdefault(line["name"], []).append(fields)
    tables = tables_of(DATA / "zstd.dat")
    inserted = [row for row in tables["ev_avc"] if row["is_insert"]]
    assert len(inserted) > 400
    for row, line in zip(inserted, printed["avc_insert"], strict=True):
        assert row["anon_pgoff"] == int(line["anon_pgoff_hi"], 16) * 2**32 + int(line["anon_pgoff_lo"], 16)
        assert (row["mm"], row["vm_end"]) == (int(line["vm_mm"], 16), int(line["vm_end"], 16))
        assert (row["anon_vma"], row["vm_flags"]) == (int(line["anon_vma"], 16), int(line["vm_flags"], 16))
    walks = [row for row in tables["ev_walk"] if not row["is_return"]]
    assert len(walks) > 100
    for row, line in zip(walks, printed["rmap_walk_ksm"], strict=True):
        assert line["rmap_one_sym"].startswith(row["rmap_one"] + "+0x0/")
        assert row["stable_node"] | 3 == int(line["mapping"], 16)
        assert row["try_lock"] == bool(int(line["try_lock"], 16))
        assert row["done"] == int(line["done"], 16)


def test_two_buffers_are_one_capture() -> None:
    tables = tables_of(DATA / "two_buffers.dat")
    assert tables["ev_avc"]
    assert tables["ev_syscall"]
    mixed = sorted(
        (row["seq"], row["ts_ns"]) for name in ("ev_avc", "ev_syscall", "ev_fault") for row in tables[name]
    )
    assert [ts for _, ts in mixed] == sorted(ts for _, ts in mixed)
