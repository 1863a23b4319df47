"""Every record of real captures, event for event and field for field, against trace-cmd's own reader.

``trace-cmd report -R -t`` prints raw values and nanoseconds. The captures are described in
``tests/data/tracedat/README.md``. Debian 12's trace-cmd cannot open zlib files: see test_tracedat_samples.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from captures import open_capture

if TYPE_CHECKING:
    from captures import Capture

DATA = Path(__file__).parent / "data" / "tracedat"
NAMES = [
    "counting_kernel.dat",
    "fprobe.dat",
    "function.dat",
    "kernel_6.12.dat",
    "kprobe_registers.dat",
    "local_clock.dat",
    "lost_events.dat",
    "stacks.dat",
    "trace_cmd_3.1.dat",
    "two_buffers.dat",
    "version6.dat.xz",
    "x86_tsc.dat",
    "zstd.dat",
]
LINE = re.compile(
    r"^(?:(?P<buffer>\S+): )?\s*(?P<comm>\S.*)-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\]\s*(?P<ts>\d+(?:\.\d{9})?): "
    r"(?P<name>\S+):\s*(?P<fields>.*)$"
)
# Fields that trace-cmd prints as a symbol, from a list that the fixtures do not hold whole.
PRINTED_AS_SYMBOL = {
    ("print", "ip"),
    ("function", "ip"),
    ("function", "parent_ip"),
    ("page_fault_kernel", "ip"),
    ("ksm_rmap_walk", "rmap_one"),
}


def unpacked(path: Path, tmp_path: Path) -> Path:
    """trace-cmd reads no .xz file."""
    if path.suffix != ".xz":
        return path
    import lzma

    target = tmp_path / path.stem
    target.write_bytes(lzma.decompress(path.read_bytes()))
    return target


def trace_cmd() -> str:
    """The program; without it the test is skipped, which CI does not allow (conftest.py)."""
    program = shutil.which("trace-cmd")
    if program is None:
        pytest.skip("trace-cmd is not installed")
    return program


def report(path: Path) -> list[dict[str, str]]:
    """The events that trace-cmd prints, in its order."""
    command = [trace_cmd(), "report", "-R", "-t", "-i", path]
    done = subprocess.run(command, capture_output=True, check=True)
    lines: list[str] = []
    for line in done.stdout.decode("utf-8", "backslashreplace").split("\n"):
        if LINE.match(line):
            lines.append(line)
        elif lines and line and not re.match(r"^(cpus=|CPU:\d+ \[)", line):
            lines[-1] += "\n" + line
    matches = [re.match(LINE.pattern, line, re.DOTALL) for line in lines]
    return [match.groupdict() for match in matches if match]


def decoded(capture: Capture) -> tuple[list[tuple[int, int, int, str]], dict[str, list[dict[str, Any]]]]:
    """(ts_ns, cpu, pid, name) of every record in order, and the rows of each event by its short name."""
    frames: list[pl.DataFrame] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, table in capture.decode(capture.event_counts()).items():
        short = name.partition(":")[2]
        assert short not in rows, "two systems have an event of this name: the report cannot tell them apart"
        rows[short] = table.to_pylist()
        common = pl.from_arrow(table.select(["seq", "ts_ns", "cpu", "pid"]))
        assert isinstance(common, pl.DataFrame)
        frames.append(common.with_columns(name=pl.lit(short)))
    whole = pl.concat(frames).sort("seq")
    return whole.select("ts_ns", "cpu", "pid", "name").rows(), rows


@pytest.mark.parametrize("name", NAMES)
def test_same_events_in_the_same_order(name: str, tmp_path: Path) -> None:
    expected = [
        (int(line["ts"].replace(".", "")), int(line["cpu"]), int(line["pid"]), line["name"])
        for line in report(unpacked(DATA / name, tmp_path))
    ]
    with open_capture(DATA / name) as capture:
        found, _ = decoded(capture)
    assert len(found) == len(expected)
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_same_fields(name: str, tmp_path: Path) -> None:
    with open_capture(DATA / name) as capture:
        _, rows = decoded(capture)
        walks = rows.get("rmap_walk_ksm", [])
        symbols = {row["rmap_one"]: capture.symbol(row["rmap_one"]) for row in walks}
        fields = {each.name: list(each.fields) for each in capture.formats.values()}
    place = dict.fromkeys(rows, 0)
    compared = 0
    for line in report(unpacked(DATA / name, tmp_path)):
        event = line["name"]
        row = rows[event][place[event]]
        place[event] += 1
        pattern = " ".join(rf"{re.escape(each)}=(.*?)" for each in fields[event])
        printed = re.fullmatch(rf"{pattern}\s*", line["fields"], re.DOTALL)
        assert printed, (line, fields[event])
        for field, text in zip(fields[event], printed.groups(), strict=True):
            column = f"{field}_" if field in ("seq", "ts_ns", "cpu", "pid") else field
            if (event, field) in PRINTED_AS_SYMBOL and not re.match(r"^(0x)?[0-9a-f]+$", text):
                continue
            if text.endswith("+0x0"):  # a function's address, with its name from kallsyms
                text = text.removesuffix("+0x0")
                assert symbols[row[column]] == text, (event, field, text, row)
                compared += 1
                continue
            assert says(row[column], text), (event, field, text, row)
            compared += 1
    assert compared > 0


def says(value: Any, text: str) -> bool:
    """Whether ``text``, as trace-cmd prints it, is ``value``."""
    if isinstance(value, str):
        return value.rstrip() == text
    if isinstance(value, list):  # words: our samples are little endian
        value = b"".join(word.to_bytes(8, "little") for word in value)
    if isinstance(
        value, bytes
    ):  # trace-cmd prints as many bytes as the format says, beyond the record's end too
        printed = bytes.fromhex(re.sub(r"^ARRAY\[|\]$|,", "", text))
        return printed.startswith(value) or value.startswith(printed)
    if isinstance(value, bool):
        return text == str(int(value))
    if isinstance(value, int):
        bits = (value, value & 0xFFFFFFFF, value & (1 << 64) - 1)
        if text.startswith("0x"):
            return int(text, 16) in bits
        return (text.lstrip("-").isdecimal() and int(text) in bits) or f"{value:x}" == text
    raise AssertionError(f"no rule to compare {value!r} with {text!r}")
