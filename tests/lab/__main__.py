"""The lab: records on real kernels under QEMU, and checks what replay says against the kernel's own counts.

    python -m tests.lab [KERNEL...]

A KERNEL is ``6.12`` or ``7.3`` (the default: both; from Debian's packages), or a path to a .deb or a vmlinuz;
it has virtiofs built in, as those have. Needs root, qemu-system-x86 and trace-cmd; takes half an hour.
Environment: ACCEL=kvm where that works; SCENARIOS of the testbench (split,mremap), or RUNS, each with the way
in which it is recorded (split:fprobes, see ``RUNS``); PAGES and CONTENTS; SIGNALS that end a recording;
NODES=1 for a machine with one NUMA node.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from replay.record.options import Profile, RecordOptions
from replay.record.run import portable_script
from tests.lab.boot import Machine, boot
from tests.lab.checks import faults
from tests.lab.emulator import emulator
from tests.lab.kernels import kernel

FOLDER = Path(__file__).resolve().parents[2] / "build" / "lab"
RUNS = {
    "split": "bench",  # replay testbench --record: recorded and analyzed in the guest
    "fork": "record",  # replay record
    "mremap": "script",  # the script of replay record --print, made here, by dash
    "holes": "btf",  # the script of replay record --print --btf, made there: arguments by number
    "file": "perf",  # replay record --tool perf
    "stack": "numbers",  # replay record where tracefs takes no arguments by name
    "family": "anon",  # replay record --anon
    "random": "fprobes",  # replay record where tracefs takes no kprobes
}
"""How each scenario is recorded, a run for each way of recording."""
SIGNALS = "TERM,INT,KILL"
TIMEOUT_S = 7200.0
BOOTS = 3
"""Tries to boot: a kernel may die early under an emulated CPU."""


def main() -> None:
    """Boot each kernel; exit with 1 if anything is wrong."""
    failed = 0
    names = sys.argv[1:] or ["6.12", "7.3"]
    scenarios = os.environ.get("SCENARIOS", ",".join(RUNS)).split(",")
    chosen = os.environ.get("RUNS", ",".join(f"{each}:{RUNS[each]}" for each in scenarios))
    pages = int(os.environ.get("PAGES", "512"))
    contents = int(os.environ.get("CONTENTS", "8"))
    variables = {
        "LAB_PYTHON": sys.executable,
        "LAB_RUNS": chosen,
        "LAB_SIGNALS": os.environ.get("SIGNALS", SIGNALS),
        "LAB_OPTIONS": f"--pages={pages},--contents={contents},--walks=2,--timeout=3000",
    }
    for name in names:
        out = FOLDER / "out" / Path(name).name
        out.mkdir(parents=True, exist_ok=True)
        for old in out.iterdir():
            old.unlink()
        machine = Machine(
            emulator(FOLDER / "qemu"),
            os.environ.get("ACCEL", "tcg"),
            kernel(name, FOLDER / "kernels"),
            int(os.environ.get("NODES", "2")),
        )
        runs = dict(each.split(":") for each in chosen.split(","))
        for scenario in runs:
            options = RecordOptions(Path(f"{scenario}.dat"), profile=Profile.truth)
            (out / f"{scenario}.sh").write_text(portable_script(options))
        for _ in range(BOOTS):
            printed = boot(machine, Path(__file__).with_name("guest.sh"), out, variables, TIMEOUT_S)
            (out / "console.txt").write_text(printed)
            if (out / "release").exists():
                break
        signals = variables["LAB_SIGNALS"].replace(",", " ").split()
        wrong = list(faults(out, runs, signals, pages, machine.nodes))
        release = (out / "release").read_text().strip() if (out / "release").exists() else "not booted"
        print(f"{name} ({release}): {'FAILED, see ' + str(out) if wrong else 'ok'}", *wrong, sep="\n  ")
        failed += bool(wrong)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
