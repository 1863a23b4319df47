"""Compares the model with the kernel: its trees with the probed ones, its VMAs with dumps of /proc/PID/maps.

    python -m tests.agreement FOLDER...

Of every capture with tree probes, at any depth: the modelled trees, rebuilt from stock events alone, are
compared with the probed ones at every instant (``replay.model.agreement``). A capture ``NAME.dat`` may have
dumps in ``NAME.maps.tar.gz``: the model has to have the VMAs that each of them lists (start, end, protection,
file offset), but for what execve() maps, which no stock event shows.
"""

from __future__ import annotations

import re
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from captures import open_capture
from captures.canonical import canonical_events
from replay.evidence import rules_of
from replay.model.agreement import agreement
from replay.model.rebuild import reconstruct
from schemas.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replay.model.agreement import Agreement
    from replay.state.kernel import KernelRules

STOCK = ("ev_syscall", "ev_task", "ev_fault")
DUMPS = ".maps.tar.gz"
AIM = 0.999
VM_SHARED = 8
_NO_CAPTURE = (".gz", ".md", ".json")


class Loaded(NamedTuple):
    """A capture: its ``ev_*`` tables, the rules of its kernel, whether it lost events."""

    events: dict[str, pl.DataFrame]
    rules: KernelRules
    events_lost: bool


@dataclass
class Comparison:
    """What the comparison of one capture gave.

    Attributes:
        path: The capture.
        found: Agreement of the trees.
        dumps: Dumps of maps that were compared.
        vmas: VMAs of the model in them.
        differing: Name of each dump that differs, and the VMAs that only one of both has.
        doubts: ``Modelled.doubts``.
    """

    path: Path
    found: Agreement
    dumps: int = 0
    vmas: int = 0
    differing: dict[str, set[Mapping]] = field(default_factory=dict)
    doubts: dict[str, int] = field(default_factory=dict)

    @property
    def is_below(self) -> bool:
        """Whether the share is below what is aimed at."""
        return self.found.share is not None and self.found.share < AIM

    @property
    def is_explained(self) -> bool:
        """Whether no dump differs, and no instant without a cause that stock events cannot show."""
        return not self.differing and "unexplained" not in self.found.causes

    def __str__(self) -> str:
        share = "-" if self.found.share is None else f"{self.found.share:.6f}"
        causes = ", ".join(f"{name} {count}" for name, count in self.found.causes.items())
        return (
            f"{self.path.parent.parent.name}/{self.path.parent.name}/{self.path.name}: agreement {share}, "
            f"{self.found.instants} instants, {self.found.trees} trees ({self.found.agreeing_trees} whole); "
            f"{causes or 'no causes'}; {self.dumps} dumps, {self.vmas} VMAs, {len(self.differing)} differ; "
            f"doubts {self.doubts}"
        )


class Mapping(NamedTuple):
    """One line of /proc/PID/maps: bytes, end exclusive; file offset of what has a file."""

    start: int
    end: int
    prot: int
    offset: int | None


def load(path: Path) -> Loaded:
    """Read a capture."""
    with open_capture(path) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
        return Loaded(events, rules_of(capture.info.kernel_release, events), capture.info.events_lost != 0)


def compare(path: Path, capture: Loaded, archive: Path | None) -> Comparison:
    """Compare the model of a capture with its probes, and with an archive of dumps."""
    events, rules, events_lost = capture
    model = reconstruct({name: events[name] for name in STOCK}, rules)
    found = agreement(events, model.lives, rules, events_lost=events_lost)
    result = Comparison(path, found, doubts=model.doubts)
    for name, pid, before, after, lines in dumps(archive) if archive is not None else ():
        compare_dump(name, lines, own_vmas(model.versions, events, pid, before, after), result)
    return result


def own_vmas(
    versions: pl.DataFrame, events: dict[str, pl.DataFrame], pid: int, before: int, after: int
) -> list[Mapping]:
    """The model's VMAs of a process that were there all the time between two."""
    own = versions.filter(
        (pl.col("mm") == mm_of(versions, events, pid, before))
        & (pl.col("born_ts_ns") <= before)
        & (pl.col("died_ts_ns").is_null() | (pl.col("died_ts_ns") > after))
    )
    return [
        Mapping(start, end, flags & 7, None if flags & VM_SHARED else 4096 * pgoff)
        for start, end, flags, pgoff in own.select("vm_start", "vm_end", "vm_flags", "vm_pgoff").rows()
    ]


def compare_dump(name: str, lines: list[Mapping], ours: list[Mapping], result: Comparison) -> None:
    """Compare VMAs of the model with a dump.

    What execve() maps is not in stock events: it lies below the heap and above what mmap() gives.
    """
    result.dumps += 1
    result.vmas += len(ours)
    low, high = min(each.start for each in ours), max(each.end for each in ours)
    theirs = {each[:3]: each.offset for each in lines if low <= each.start and each.end <= high}
    missing = theirs.keys() - {own[:3] for own in ours}
    odd = {each for each in lines if each[:3] in missing}
    for own in ours:
        if own[:3] not in theirs or (
            None not in (own.offset, theirs[own[:3]]) and own.offset != theirs[own[:3]]
        ):
            odd.add(own)
    if odd:
        result.differing[name] = odd


def dumps(path: Path) -> Iterator[tuple[str, int, int, int, list[Mapping]]]:
    """Name, pid, time before and after, lines."""
    line = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])[ps] ([0-9a-f]+) \S+ (\d+)")
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            text = file.read().decode()
            pid, before, after = (
                int(re.findall(rf"{key}=(\d+)", text)[0]) for key in ("pid", "mono_ns_start", "mono_ns_end")
            )
            lines = [
                Mapping(
                    int(start, 16),
                    int(end, 16),
                    (read == "r") | (write == "w") << 1 | (execute == "x") << 2,
                    int(offset, 16) if int(inode) else None,
                )
                for start, end, read, write, execute, offset, inode in line.findall(text)
            ]
            yield member.name, pid, before, after, lines


def mm_of(versions: pl.DataFrame, events: dict[str, pl.DataFrame], pid: int, ts_ns: int) -> int:
    """The mm of a task: of what it mapped last before a time, or of its fork."""
    forks = events["ev_task"].filter((pl.col("kind") == "newtask") & (pl.col("child_pid") == pid))["seq"]
    copied = versions.filter(pl.col("born_seq").is_in(forks.to_list()))
    forked = pl.col("cause_event").is_in(["clone", "clone3", "fork", "vfork"])
    own = versions.filter((pl.col("pid") == pid) & (pl.col("born_ts_ns") <= ts_ns) & ~forked)
    return int(pl.concat([copied, own]).sort("born_seq")["mm"][-1])


def probed_captures(folder: Path) -> Iterator[tuple[Path, Loaded]]:
    """The captures with tree probes in a folder, at any depth; what is no capture is passed over."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in _NO_CAPTURE:
            continue
        try:
            capture = load(path)
        except CaptureError as error:
            print(f"{path}: {error}")
            continue
        if not capture.events["ev_avc"].is_empty():
            yield path, capture


def main(folders: list[str]) -> int:
    """Compare all captures of the folders and print what came out; 1 if a difference has no cause."""
    results = []
    for folder in folders:
        for path, capture in probed_captures(Path(folder)):
            beside = path.with_name(path.name.removesuffix(".dat") + DUMPS)
            result = compare(path, capture, beside if beside.exists() else None)
            print(result, flush=True)
            for name, odd in result.differing.items():
                print(f"  {name}: {sorted((hex(each.start), hex(each.end), each.prot) for each in odd)}")
            results.append(result)
    below = sum(result.is_below for result in results)
    odd = sum(not result.is_explained for result in results)
    print(f"{len(results)} captures; {below} below {AIM}; {odd} with differences that no cause explains")
    return int(odd > 0 or not results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
