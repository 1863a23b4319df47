"""The lab: records on real kernels under QEMU, and checks what replay says against the kernel's own counts.

    python -m tests.lab [KERNEL...]

A KERNEL is ``6.12`` or ``7.3`` (the default: both; from Debian's packages), or a path to a .deb or a vmlinuz;
it has virtiofs built in, as those have. Needs root, qemu-system-x86 and trace-cmd. Takes minutes. Set
ACCEL=kvm where that works, and SCENARIOS to those of the testbench (split,mremap).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from replay import analyze
from tests.lab.boot import boot
from tests.lab.kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[2] / "build" / "lab"
SCENARIOS = os.environ.get("SCENARIOS", "split,mremap")
PAGES = 512
TIMEOUT_S = 3600.0
BOOTS = 3
"""Tries to boot: about one in ten kernels dies early under QEMU 7.2, on an int3 of its own code patching."""


def faults(out: Path) -> Iterator[str]:
    """What is wrong with what a guest wrote."""
    if not (out / "after-interrupt").exists():
        yield "the guest did not come to its end"
        return
    before = (out / "before").read_text()
    for then in ("after", "after-interrupt"):
        if (out / then).read_text() != before:
            yield f"left behind, {then}:\n{(out / then).read_text()}instead of:\n{before}"
    if (out / "interrupted.status").read_text().strip() != "130":
        yield f"interrupted: status {(out / 'interrupted.status').read_text().strip()}, not 130"
    for scenario in SCENARIOS.split(","):
        if (out / f"{scenario}.status").read_text().strip() != "0":
            yield f"{scenario}: status {(out / f'{scenario}.status').read_text().strip()}"
        else:
            yield from differences(out / f"{scenario}.dat", scenario)


def differences(path: Path, scenario: str) -> Iterator[str]:
    """Where the replay of a capture differs from what its kernel counted."""
    tables = {name: pl.DataFrame(pl.from_arrow(table)) for name, table in analyze(path).tables.items()}
    # What the kernel looks up: up to 7.2 the whole tree; from 7.3 on, with anon_pgoff, one page offset.
    own = {"vm_pgoff": "full", "anon_pgoff": "linear"}[tables["capture"]["page_offset_rule"][0]]
    counts = ["iterations", "rmap_one_calls"]
    loop = tables["loop"]
    walks = tables["walk"].filter(pl.col("strategy") == own)
    summary = {row["strategy"]: row for row in tables["summary"].to_dicts()}
    observed = loop.filter(pl.col("strategy") == "observed")
    replayed = loop.filter(pl.col("strategy") == own)
    print(f"{scenario}: {len(walks)} walks, {len(observed)} loops; longest loops:", end=" ")
    print(", ".join(f"{name} {row['iterations_max']}" for name, row in summary.items()), end="; missed: ")
    print(", ".join(f"{name} {row['missed']}" for name, row in summary.items()))
    if set(walks["caller"]) < {"try_to_migrate_one", "remove_migration_pte"}:
        yield f"{scenario}: no migration among the walks: {set(walks['caller'])}"
    by_walk = [frame.group_by("walk_id", maintain_order=True).agg(*counts) for frame in (observed, replayed)]
    if not by_walk[0].equals(by_walk[1]):
        yield f"{scenario}: the kernel counted\n{by_walk[0]}\nbut {own} gives\n{by_walk[1]}"
    if scenario == "split" and summary["full"]["iterations_max"] != PAGES:
        yield f"{scenario}: full makes {summary['full']['iterations_max']} iterations, not {PAGES}"
    for strategy in {"split": ["vm_pgoff"], "mremap": ["addr", "vm_pgoff"]}.get(scenario, []):
        if not summary[strategy]["missed"]:
            yield f"{scenario}: {strategy} misses nothing"
    for strategy in ("full", "linear"):
        if summary[strategy]["missed"] != 0:
            yield f"{scenario}: {strategy} misses {summary[strategy]['missed']}"


def main() -> None:
    """Boot each kernel; exit with 1 if anything is wrong."""
    failed = 0
    names = sys.argv[1:] or ["6.12", "7.3"]
    for name in names:
        out = FOLDER / "out" / Path(name).name
        out.mkdir(parents=True, exist_ok=True)
        for old in out.iterdir():
            old.unlink()
        variables = {
            "LAB_PYTHON": sys.executable,
            "LAB_SCENARIOS": SCENARIOS,
            "LAB_EVENTS": "truth",
            "LAB_PAGES": str(PAGES),
        }
        vmlinuz = kernel(name, FOLDER / "kernels")
        for _ in range(BOOTS):
            printed = boot(vmlinuz, out, variables, os.environ.get("ACCEL", "tcg"), TIMEOUT_S)
            (out / "console.txt").write_text(printed)
            if (out / "release").exists():
                break
        wrong = list(faults(out))
        release = (out / "release").read_text().strip() if (out / "release").exists() else "not booted"
        print(f"{name} ({release}): {'FAILED, see ' + str(out) if wrong else 'ok'}", *wrong, sep="\n  ")
        failed += bool(wrong)
    print(f"{len(names) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
