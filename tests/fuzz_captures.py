"""Changes captures of every format at random: reading them has to end in a result or in a ReplayError.

    python -m tests.fuzz_captures [--seconds N] [--cases N] [--seed N] [--keep DIR]

Structure-aware without knowing a format: the readers take every number that is a size, a count, a place or
an id through ``captures.cursor``, which is watched while a whole file is read; such numbers get the values
that break programs. Ring buffer pages and event formats are changed before they are compressed. Every sample
in ``tests/data`` is a beginning, and so are the small files of other tests, which have everything in few
bytes.

Cases of ``tests.fuzz_histories``, and some of the others, are inspected and analysed, too.

A case fails if it raises anything else, takes more than SECONDS of processor time, reserves more than
MEMORY_BYTES, touches more memory while it is read than WORKING_BYTES and MULTIPLE times its size, or ends the
process. It is kept as a file, which ``tests/test_fuzz.py`` runs again when it lies in tests/data/crashes.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import lzma
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captures import open_capture
from captures.cursor import Cursor
from schemas.errors import ReplayError
from tests import fuzz_histories, test_hostile, test_perf_hostile
from tests.tracedat_writer import Buffer, Kernel

DATA = Path(__file__).parent / "data"
SECONDS = 20.0
MEMORY_BYTES = 1 << 30
WORKING_BYTES = 1 << 25
MULTIPLE = 32
LARGEST_BYTES = 1 << 20
"""Samples above this are begun with as far as it goes: cut files are cases, too."""

Case = Callable[[random.Random], bytes]


class TooSlow(BaseException):
    """A case took more than SECONDS. No ``except Exception`` of the code under test may swallow it."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="at most so many; default: any number")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "replay-crashes")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    arguments.keep.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + arguments.seconds
    failed = 0
    while (left := end - time.monotonic()) > 0:
        # A case may end the process that it runs in: what it was, it wrote down before.
        numbers = (str(seed), str(left), str(arguments.cases))
        child = subprocess.run([sys.executable, "-c", _CHILD, *numbers, str(arguments.keep)], check=False)
        if child.returncode == 0:
            break
        failed += 1
        if child.returncode < 0:
            path = arguments.keep / f"seed{seed}-signal{-child.returncode}"
            (arguments.keep / "running").rename(path)
            print(f"{path}: the process ended with signal {-child.returncode}", file=sys.stderr)
        seed += 1
    return 1 if failed else 0


_CHILD = "import sys; from tests.fuzz_captures import fuzz; sys.exit(fuzz(*sys.argv[1:]))"


def fuzz(seed: str, seconds: str, cases_at_most: str, keep: str) -> int:
    """Run cases in this process until one fails, or the time is over, or they are done; 1: one failed."""
    faulthandler.enable()
    chance = random.Random(int(seed))
    cases = list(beginnings())
    running = Path(keep) / "running"
    end = time.monotonic() + float(seconds)
    done, outcomes = 0, dict.fromkeys(sorted(test_hostile.OUTCOMES | fuzz_histories.OUTCOMES), 0)
    warm_up(running, chance)
    while done < int(cases_at_most) and time.monotonic() < end:
        case = chance.choice(cases)
        content = case(chance)
        running.write_bytes(content)
        error = check(running, content)
        if error in outcomes and (case is fuzz_histories.history or chance.random() < 0.05):
            error = guarded(lambda: fuzz_histories.analysed(running, fuzz_histories.any_options(chance)))
        done += 1
        if error not in outcomes:
            path = Path(keep) / f"seed{seed}-case{done}"
            running.rename(path)
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        outcomes[error] += 1
    running.unlink()
    print(f"seed {seed}: {done} cases, " + ", ".join(f"{n} {name}" for name, n in outcomes.items() if n))
    return 0


def warm_up(path: Path, chance: random.Random) -> None:
    """What is imported or compiled late is not counted as memory or time of a case."""
    for content in (test_hostile.small(), test_perf_hostile.small("file"), b" a-1 [0] 1.000000: b: c=1\n"):
        test_hostile.survives(path, content)
    for _ in range(4):
        path.write_bytes(fuzz_histories.history(chance))
        fuzz_histories.analysed(path, fuzz_histories.any_options(chance))


def check(path: Path, content: bytes) -> str:
    """What becomes of a file: as ``test_hostile.survives`` says, or what is wrong."""
    path.write_bytes(content)
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from now on: proc_pid_clear_refs(5)
    outcome = guarded(lambda: test_hostile.survives(path, content))
    touched = memory("VmHWM") - before
    if touched > WORKING_BYTES + MULTIPLE * len(content):
        return f"{outcome}, but it touched {touched} bytes for {len(content)}"
    return outcome


def memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def guarded(run: Callable[[], str]) -> str:
    """What ``run`` returns, or a traceback."""
    try:
        with limits():
            return run()
    except (Exception, TooSlow):
        return traceback.format_exc()


@contextmanager
def limits() -> Iterator[None]:
    """Bound the processor time and the memory of what runs in it."""

    def stop(*_: Any) -> None:
        raise TooSlow

    # Measured in pages that the process could touch: what is reserved and never used counts, too.
    gc.collect()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, before[1]))
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def beginnings() -> Iterator[Case]:
    """Functions that make a case. Small files come often: they are read fast."""
    small = [test_hostile.small(*variant) for variant in test_hostile.VARIANTS]
    small += [test_perf_hostile.small(variant) for variant in test_perf_hostile.VARIANTS]
    for content in small:
        yield from [changing(content)] * 6
    for variant in test_hostile.VARIANTS:
        yield from [rebuilding(*variant)] * 10
    yield from [fuzz_histories.history] * 20
    for path in sorted(DATA.glob("*/*")):
        if path.parent.name in ("tracedat", "perf", "text") and path.suffix != ".md":
            content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            yield changing(content[:LARGEST_BYTES])
            if path.parent.name == "text":
                yield from [editing(content[: 1 << 14])] * 4


def changing(content: bytes) -> Case:
    """Cases that are ``content`` with numbers, bytes or parts of it changed."""
    places = numbers_in(content)

    def case(chance: random.Random) -> bytes:
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            if places and chance.random() < 0.5:
                at, size, order = chance.choice(places)
            else:
                size = chance.choice((1, 2, 4, 8))
                at, order = chance.randrange(max(len(changed) // size, 1)) * size, "little"
            old = int.from_bytes(changed[at : at + size], order)
            value = number(chance, old, len(content), size)
            changed[at : at + size] = value.to_bytes(size, order)
        return move_parts(chance, changed) if chance.random() < 0.2 else bytes(changed)

    return case


def numbers_in(content: bytes) -> list[tuple[int, int, str]]:
    """Places, sizes and byte orders of the numbers that readers take from a file."""
    places: set[tuple[int, int, str]] = set()
    read = Cursor.unsigned

    def watched(self: Cursor, size: int, what: str) -> int:
        if self.offset is not None and self.origin == 0:
            places.add((self.pos, size, self.order))
        return read(self, size, what)

    with tempfile.NamedTemporaryFile() as file, _replaced(Cursor, "unsigned", watched):
        file.write(content)
        file.flush()
        try:
            with open_capture(file.name) as capture:
                capture.decode(list(capture.event_counts()))
        except ReplayError:
            pass  # the numbers up to there are known
    return sorted(each for each in places if each[0] + each[1] <= len(content))


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def number(chance: random.Random, old: int, file_bytes: int, size: int) -> int:
    """A number of ``size`` bytes that a program may not expect."""
    top = 1 << 8 * size
    value = chance.choice(
        (
            old + chance.choice((-8, -4, -2, -1, 1, 2, 4, 8)),
            old ^ 1 << chance.randrange(8 * size),
            old * 2,
            old // 2,
            chance.choice((0, 1, 2, 3, 7, 15, 16, 255, 4095, 4096, 65535, 65536)),
            top - chance.choice((1, 2, 8, 4096)),
            top // 2 - chance.choice((0, 1)),
            chance.choice((1 << 31, 1 << 32, 1 << 40, 1 << 63)),
            file_bytes + chance.choice((-4096, -1, 0, 1, 4096)),
            chance.randrange(file_bytes + 1),
            chance.randrange(top),
        )
    )
    return value % top


def move_parts(chance: random.Random, content: bytearray) -> bytes:
    """Cut, repeat, take out, swap or fill a part."""
    begin, end = sorted((chance.randrange(len(content) + 1), chance.randrange(len(content) + 1)))
    end = min(end, begin + chance.choice((16, 256, 4096, 1 << 16)))
    part = content[begin:end]
    kind = chance.choice("crtsf")
    if kind == "c":
        del content[begin:]
    elif kind == "r":
        content[begin:begin] = part * chance.choice((1, 2, 50 if len(part) < 4096 else 2))
    elif kind == "t":
        del content[begin:end]
    elif kind == "s":
        to = chance.randrange(len(content) + 1)
        content[to : to + len(part)] = part
    else:
        content[begin:end] = bytes([chance.choice((0, 0xFF, 0x20, 0x0A))]) * len(part)
    return bytes(content)


def rebuilding(version: int, compression: str) -> Case:
    """Cases whose pages and formats are wrong, in a file that is right around them."""

    def case(chance: random.Random) -> bytes:
        k = Kernel(chance.choice("<>"), chance.choice((4, 8)))
        insert, text = test_hostile.INSERT, test_hostile.PRINT
        if chance.random() < 0.4:
            insert = edited(chance, insert)
        if chance.random() < 0.2:
            text = edited(chance, text)
        header_page = edited(chance, k.header_page()) if chance.random() < 0.1 else None
        pages = {cpu: b"".join(page(chance, k) for _ in range(chance.randrange(4))) for cpu in range(3)}
        buffers = [Buffer(pages), Buffer({1: page(chance, k)}, name="other")]
        return test_hostile.small(
            version,
            compression,
            kernel=k,
            formats=[("ksmprobe", insert)],
            ftrace=[text],
            header_page=header_page,
            buffers=buffers[: chance.randrange(3)],
        )

    return case


def page(chance: random.Random, k: Kernel) -> bytes:
    """A page with any records, and now and then words of it changed."""
    records, room = [], 3000
    while room > 0 and chance.random() < 0.95:
        delta = chance.choice((0, 1, 2, 1000, (1 << 27) - 1))
        payload = k.common(chance.choice((5, 1601, 7)), chance.randrange(1 << 31)) + chance.randbytes(
            4 * chance.choice((1, 2, 8, 11, 12, 13, 60))
        )
        record = chance.choice(
            (
                k.data(delta, payload),
                k.data(delta, payload, large=True),
                k.data(delta, payload),
                k.time_extend(chance.randrange(1 << 50)),
                k.time_stamp(chance.randrange(1 << 63)),
                k.discarded(delta, 4 * chance.randrange(1, 9)),
                k.padding(),
            )
        )
        records.append(record)
        room -= len(record)
    ts = chance.choice((0, 1000, 1 << 40, (1 << 64) - 1, chance.randrange(1 << 64)))
    whole = bytearray(k.page(ts, records, lost=chance.choice((False, False, True, 3, -1))))
    for _ in range(chance.choice((0, 0, 1, 3))):
        at = 4 * chance.randrange(len(whole) // 4 if chance.random() < 0.5 else 8)
        order = "little" if k.order == "<" else "big"
        value = number(chance, int.from_bytes(whole[at : at + 4], order), 4096, 4)
        whole[at : at + 4] = value.to_bytes(4, order)
    return bytes(whole)


def edited(chance: random.Random, text: bytes) -> bytes:
    """Text with lines and words changed: numbers to others, lines doubled, swapped, left out, cut."""
    lines = text.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(lines))
        kind = chance.choice("nnnwdscb")
        words = lines[at].replace(b":", b" : ").split(b" ") if kind == "w" else []
        digits = [n for n, byte in enumerate(lines[at]) if 48 <= byte < 58]
        if kind == "n" and digits:
            place = chance.choice(digits)
            value = b"%d" % number(chance, 8, len(text), chance.choice((1, 2, 4, 8)))
            lines[at] = lines[at][:place] + value + lines[at][place + 1 :]
        elif kind == "w":
            chance.shuffle(words)
            lines[at] = b" ".join(words)
        elif kind == "d":
            lines.insert(at, lines[at])
        elif kind == "s":
            other = chance.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "c":
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif kind == "b":
            lines[at] += chance.randbytes(chance.randrange(8))
    return b"\n".join(lines)


def editing(content: bytes) -> Case:
    """Cases of a text."""
    return lambda chance: edited(chance, content)


if __name__ == "__main__":
    sys.exit(main())
