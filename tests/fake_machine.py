"""A machine to record on, as a folder: the files of tracefs and /proc that a recording touches, a trace-cmd.

The files are those of a real kernel (tests/data/tracefs) where their text matters. What the kernel would do
is left out: definitions written to dynamic_events stay there as lines, as do those that remove them. The
trace-cmd switches events and tracing on, waits to be interrupted and leaves a real capture.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "tests" / "data" / "tracefs"
CAPTURE = ROOT / "tests" / "data" / "tracedat" / "zstd.dat"

TRACE_CMD = """\
import os, pathlib, shutil, signal, sys, time
tracefs = pathlib.Path(os.environ["TRACEFS"])
(tracefs.parent / "arguments").write_text("\\n".join(sys.argv[1:]) + "\\n")
if "FAKE_DIES" in os.environ:
    sys.exit("trace-cmd: no space left")
ended = []
(tracefs / "tracing_on").write_text("0\\n")
(tracefs / "trace_clock").write_text("local [mono]\\n")
(tracefs / "buffer_size_kb").write_text("65536\\n")
time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
for each in tracefs.glob("events/*/*/enable"):
    each.write_text("1\\n")
signal.signal(signal.SIGINT, lambda *_: ended.append(1))
(tracefs / "tracing_on").write_text("1\\n")
while not ended:
    time.sleep(0.02)
(tracefs / "tracing_on").write_text("0\\n")
for each in tracefs.glob("events/*/*/enable"):
    each.write_text("0\\n")
print(os.environ.get("FAKE_SAYS", ""))
shutil.copy(os.environ["FAKE_CAPTURE"], sys.argv[sys.argv.index("-o") + 1])
"""

BEFORE = {
    "trace_clock": "[local] global counter uptime perf mono mono_raw boot tai x86-tsc\n",
    "tracing_on": "1\n",
    "buffer_size_kb": "7 (expanded: 1408)\n",
    "current_tracer": "nop\n",
    "set_event": "",
    "dynamic_events": "p:other/mine vfs_read\n",
}


@dataclass(frozen=True)
class Machine:
    """The folder."""

    folder: Path

    @property
    def tracefs(self) -> Path:
        return self.folder / "tracefs"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TRACEFS": str(self.tracefs),
            "PROC": str(self.folder / "proc"),
            "TMPDIR": str(self.folder / "tmp"),
            "FAKE_CAPTURE": str(CAPTURE),
        }

    def defined(self) -> list[str]:
        """Names of the probes that were defined, in order."""
        return re.findall(r"^[pr]\d*:(ksm\S+)", self.read("dynamic_events"), re.MULTILINE)

    def left(self) -> list[str]:
        """What a recording left behind."""
        removed = re.findall(r"^-:(\S+)$", self.read("dynamic_events"), re.MULTILINE)
        left = sorted({f"probe {each}" for each in self.defined()} - {f"probe {each}" for each in removed})
        left += [f"removed {each}" for each in removed if not each.startswith(("ksmprobe/", "ksmtruth/"))]
        if "[local]" not in self.read("trace_clock") and self.read("trace_clock") != "local":
            left.append(f"clock {self.read('trace_clock')}")
        if self.read("buffer_size_kb") not in ("1408", BEFORE["buffer_size_kb"]):
            left.append(f"buffer {self.read('buffer_size_kb')}")
        if self.read("tracing_on").strip() != "1":
            left.append("tracing is off")
        return left + [f"file {each.name}" for each in (self.folder / "tmp").iterdir()]

    def read(self, name: str) -> str:
        return (self.tracefs / name).read_text()


def machine(folder: Path, kernel: str = "6.12") -> Machine:
    """A machine that runs one of the kernels in tests/data/tracefs."""
    made = Machine(folder)
    tree = KERNELS / kernel
    for name in ("bin", "tmp", "proc/1", "proc/7", "proc/8", "tracefs/events"):
        (folder / name).mkdir(parents=True)
    shutil.copy(tree / "README", made.tracefs / "README")
    for name, text in BEFORE.items():
        (made.tracefs / name).write_text(text)
    for event in (tree / "events").read_text().split():
        (made.tracefs / "events" / event).mkdir(parents=True)
        (made.tracefs / "events" / event / "enable").write_text("0\n")
    os.mkfifo(made.tracefs / "trace_marker")
    shutil.copy(tree / "kallsyms", folder / "proc" / "kallsyms")
    (folder / "proc" / "cpuinfo").write_text("processor\t: 0\n\nprocessor\t: 1\n")
    (folder / "proc" / "meminfo").write_text("MemTotal: 4194304 kB\nMemAvailable: 2097152 kB\n")
    for pid, merging in (("1", 0), ("7", 12), ("8", 0)):
        (folder / "proc" / pid / "ksm_stat").write_text(f"ksm_rmap_items {merging}\nksm_zero_pages 0\n")
        (folder / "proc" / pid / "maps").write_text(f"{pid}000-{pid}f000 rw-p 00000000 00:00 0 \n")
    trace_cmd = folder / "bin" / "trace-cmd"
    trace_cmd.write_text(f"#!{sys.executable} -ISE\n{TRACE_CMD}")
    trace_cmd.chmod(0o755)
    return made
