"""User stacks: as a capture tells them, and at the call sites of the split audit."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replay
from captures import open_capture
from captures.canonical import canonical_events
from tests import perf_writer as w
from tests.perf_tool import DATA, for_perf, run
from tests.tracedat_writer import Buffer, Kernel, TraceDat, event_format

if TYPE_CHECKING:
    from pathlib import Path

BASE, PAGE = 0x7F00_0000_0000, 4096
KERNEL, USER, GUEST = ((1 << 64) - number for number in (128, 512, 2560))
KERNELS = {"little": Kernel("<"), "big": Kernel(">"), "32 bits": Kernel("<", 4)}
PID = 7
READ, WRITE = 1, 3
IN_A_LOOP, ELSEWHERE = (0x5000_0010, 0x5000_0100), (0x5000_0020, 0x5000_0100)


def call_formats(long_bytes: int = 8) -> list[tuple[str, bytes]]:
    """Formats of mmap, mprotect and faults, and of ftrace's stacks."""
    n = long_bytes
    formats = []
    for number, (call, arguments) in enumerate((("mmap", 6), ("mprotect", 3))):
        fields = [("int __syscall_nr", 8, 4, 1)]
        fields += [(f"unsigned long a{place}", 16 + n * place, n, 0) for place in range(arguments)]
        formats.append(("syscalls", event_format(f"sys_enter_{call}", 100 + 2 * number, fields)))
        back = [("int __syscall_nr", 8, 4, 1), ("long ret", 16, n, 1)]
        formats.append(("syscalls", event_format(f"sys_exit_{call}", 101 + 2 * number, back)))
    fault = [("unsigned long address", 8, n, 0), ("unsigned long ip", 8 + n, n, 0)]
    fault.append(("unsigned long error_code", 8 + 2 * n, n, 0))
    formats.append(("exceptions", event_format("page_fault_user", 110, fault)))
    stack = [("unsigned int tgid", 8, 4, 0), ("unsigned long caller[8]", 16, 8 * n, 0)]
    return [*formats, ("ftrace", event_format("user_stack", 12, stack))]


def story(k: Kernel) -> list[tuple[bytes, tuple[int, ...]]]:
    """Payloads with the user stack at each: 8 pages are mapped, written and split, from two places."""
    n = k.long_bytes

    def call(number: int, values: tuple[int, ...], ret: int) -> list[bytes]:
        enter = k.common(100 + 2 * number, PID) + k.u(8, 0) + k.u(n, *values)
        return [enter, k.common(101 + 2 * number, PID) + k.u(8, 0) + k.u(n, ret)]

    told = [(each, ELSEWHERE) for each in call(0, (0, 8 * PAGE, WRITE, 0x22, 0, 0), BASE >> 8)]
    for page in range(8):
        told.append((k.common(110, PID) + k.u(n, (BASE >> 8) + page * PAGE, 0, 6), (0x6000 + page,)))
    for page in range(1, 8, 2):
        split = call(1, ((BASE >> 8) + page * PAGE, PAGE, READ), 0)
        told += [(each, IN_A_LOOP if page < 6 else ELSEWHERE) for each in split]
    return told


def trace_dat(k: Kernel, version: int) -> bytes:
    """The story as ftrace tells it: each event, then its stack, which zeros fill up."""
    records = []
    for payload, frames in story(k):
        stack = k.common(12, PID) + k.u(4, PID) + bytes(4)
        stack += k.u(k.long_bytes, *(*frames, *(0,) * (8 - len(frames))))
        records += [k.data(10, payload), k.data(0, stack)]
    page = k.page(1000, records)
    return TraceDat(call_formats(k.long_bytes), [Buffer({0: page})], k, version).build()


def perf_data(k: Kernel, flags: int) -> bytes:
    """The story as perf tells it: kernel frames, then the user's, in a call chain."""
    perf = w.Perf(k)
    formats = call_formats()[:-1]
    of = {
        number: w.Event(
            number,
            (10 * number,),
            w.TRACEPOINT_SAMPLE | w.CALLCHAIN,
            flags=w.SAMPLE_ID_ALL | w.USE_CLOCKID | flags,
            clockid=1,
        )
        for number in (100, 101, 102, 103, 110)
    }
    records = []
    for place, (payload, frames) in enumerate(story(k)):
        number = int.from_bytes(payload[:2], "little" if k.order == "<" else "big")
        chain = (KERNEL, 0xFFFF_FFFF_8100_0000, USER, *frames, 0, 0xBAD)
        records.append(perf.sample(of[number], payload, 1000 + 10 * (place // 2), 0, tid=PID, chain=chain))
    records = records[::-1] if flags & w.WRITE_BACKWARD else records
    return w.PerfData(list(of.values()), records, formats, k).build()


def text(frames: tuple[int, ...]) -> str:
    return " < ".join(map(hex, frames))


FILES = {
    **{f"trace.dat {v}, {name}": (trace_dat, k, v) for v in (6, 7) for name, k in KERNELS.items()},
    **{f"perf.data, {name}": (perf_data, KERNELS[name], 0) for name in ("little", "big")},
    "perf.data, newest first": (perf_data, KERNELS["little"], w.WRITE_BACKWARD),
}


@pytest.mark.parametrize("name", FILES)
def test_call_sites_show_their_stacks(name: str, tmp_path: Path) -> None:
    """One task splits from two places in its program: two call sites with as many VMAs as each made."""
    write, k, option = FILES[name]
    path = tmp_path / "capture"
    path.write_bytes(write(k, option))
    with open_capture(path) as capture:
        events = {each: pl.DataFrame(t) for each, t in canonical_events(capture).items()}
    assert events["ev_stack"]["frames"].to_list() == [text(frames) for _, frames in story(k)]
    assert events["ev_stack"]["pid"].unique().to_list() == [PID]
    calls = pl.concat([events[each].select("seq") for each in ("ev_syscall", "ev_fault")])["seq"].sort()
    assert (events["ev_stack"]["seq"] == calls + 1).all()
    tables = replay.analyze(path, replay.AnalyzeOptions(kernel_rules="7.3")).tables
    sites = {
        (row["cause_event"], row["stack"]): (row["calls"], row["vmas_to_peak"])
        for row in tables["split"].to_pylist()
    }
    assert sites == {
        ("page_fault", text((0x6000,))): (1, 1),
        ("mprotect", text(IN_A_LOOP)): (3, 6),
        ("mprotect", text(ELSEWHERE)): (1, 1),
    }


@settings(max_examples=60)
@given(
    chains=st.lists(
        st.lists(st.sampled_from((KERNEL, USER, GUEST, 1, 2, 1 << 63, 0)), max_size=9), min_size=1, max_size=9
    ),
    order=st.sampled_from("<>"),
)
def test_only_what_a_chain_says_is_the_users(
    chains: list[list[int]], order: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    k = Kernel(order)
    event = w.Event(110, (9,), w.TRACEPOINT_SAMPLE | w.CALLCHAIN)
    payload = k.common(110, PID) + k.u(8, 1, 2, 6)
    records = [
        w.Perf(k).sample(event, payload, 1000 + place, 0, tid=place, chain=tuple(chain))
        for place, chain in enumerate(chains)
    ]
    path = tmp_path_factory.mktemp("chains") / "perf.data"
    path.write_bytes(w.PerfData([event], records, call_formats()[:-1], k).build())
    expected = []
    for place, chain in enumerate(chains):
        whose, own = None, []
        for word in chain:
            if word in (KERNEL, USER, GUEST):
                whose = word
            elif whose == USER:
                own.append(word)
        if own:
            expected.append((place, text(tuple(own[: own.index(0)] if 0 in own else own)) or None))
    with open_capture(path) as capture:
        found = pl.DataFrame(canonical_events(capture)["ev_stack"])
        assert capture.event_counts().get("perf:user_stack", 0) == len(expected)
        assert capture.info.events == len(chains)
    assert found.select("pid", "frames").rows() == expected


def test_the_frames_of_a_real_capture_are_those_that_perf_prints(tmp_path: Path) -> None:
    """perf dumps each chain as it is in the file; a marker says whose the frames behind it are."""
    name = "call_graphs_zstd.perf.data.xz"
    dump = run(for_perf(DATA / name, tmp_path), "-D")
    expected = []
    for each in re.split(r"\n(?=\d+ \d+ 0x[0-9a-f]+ \[)", dump):
        head = re.match(r"\d+ (\d+) .*PERF_RECORD_SAMPLE\(.*\): \d+/(\d+): ", each)
        words = [int(word, 16) for word in re.findall(r"^\.{5} +\d+: ([0-9a-f]+)", each, re.MULTILINE)]
        own = words[words.index(USER) + 1 :] if USER in words else []
        own = list(takewhile(lambda word: word < (1 << 64) - 4095, own))
        own = own[: own.index(0)] if 0 in own else own
        if head and own:
            expected.append((int(head[1]), int(head[2]), text(tuple(own))))
    with open_capture(DATA / name) as capture:
        found = pl.DataFrame(canonical_events(capture)["ev_stack"]).drop_nulls("frames")
    assert len(found) > 1000
    assert sorted(found.select("ts_ns", "pid", "frames").rows()) == sorted(expected)
