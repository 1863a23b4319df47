"""``replay record``: make the script for this kernel, run it, look at what it recorded."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from captures.recipes import KERNELS
from replay.record.btf import Btf
from replay.record.options import Profile, RecordOptions
from replay.record.probes import MODERN, Definition, Syntax, adapt, definitions, kernel_of
from replay.record.script import script
from schemas.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

TRACEFS: Final = Path(os.environ.get("TRACEFS", "/sys/kernel/tracing"))
BTF: Final = Path("/sys/kernel/btf/vmlinux")
NOT_RECORDED: Final = 125
"""Exit status of the script when it could not record."""

_WALK: Final = "ksmprobe:rmap_walk_ksm"
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Recording:
    """What came out.

    Attributes:
        path: The capture.
        status: Exit status of the command; 0 without one.
        interrupted: Whether a signal ended the command.
        walks: Calls of rmap_walk_ksm() in it; None: recorded without the probe.
        answers: Grades of ``replay inspect`` (``exact``, ``assumed``, ``modelled``, ``not``), best first, and
            the questions that the capture answers so.
    """

    path: Path
    status: int
    interrupted: bool
    walks: int | None
    answers: Mapping[str, tuple[str, ...]]


def portable_script(options: RecordOptions) -> str:
    """The script for another machine, which has no replay.

    It finds out on the spot which functions the kernel has. With ``options.btf`` it is for the kernel whose
    BTF that is, and needs no arguments by name there.

    Raises:
        UsageError: The BTF cannot be read, or is of a kernel without the functions to probe.
    """
    if options.profile is Profile.stock:
        return script(options, {})
    if options.btf is not None:
        return script(options, _adapted(options, Syntax(names=False, kprobes=True), options.btf))
    return script(options, _by_name(options))


def record(options: RecordOptions, tracefs: Path = TRACEFS) -> Recording:
    """Record on this machine, and check the capture.

    Whatever ends it, also a signal, the script takes away what it set up before this returns or raises.

    Args:
        options: What to record.
        tracefs: Where tracefs is mounted.

    Raises:
        UsageError: This kernel cannot be probed so.
        OutputError: Nothing was recorded (the script has said why), or events were lost.
    """
    options = replace(options, output=options.output.absolute())
    text = script(options, _probes_here(options, tracefs))
    status, signalled = _run(["/bin/sh", "-c", text, "replay record"], tracefs)
    if status == NOT_RECORDED:
        raise OutputError(
            "nothing was recorded, or not all", path=options.output, hint="what is said above tells why"
        )
    return _checked(options, status, interrupted=signalled and status != 0)


def clean_up(tracefs: Path = TRACEFS) -> None:
    """Remove the probes that a killed recording left."""
    text = script(RecordOptions(Path("trace.dat"), profile=Profile.stock), {})
    _run(["/bin/sh", "-c", text, "replay record", "--clean"], tracefs)


def _probes_here(options: RecordOptions, tracefs: Path) -> dict[str, list[Definition]]:
    """The probes of the profile for the running kernel."""
    if options.profile is Profile.stock:
        return {}
    try:
        syntax = Syntax.of((tracefs / "README").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        syntax = MODERN  # no tracefs, or no permission: the script says which, and what to do
    if syntax == MODERN and options.btf is None:
        return _by_name(options)
    return _adapted(options, syntax, options.btf or BTF)


def _by_name(options: RecordOptions) -> dict[str, list[Definition]]:
    """The probes for whichever kernel it turns out to be, with arguments by name."""
    return {kernel: definitions(options.profile, kernel, anon=options.anon) for kernel in reversed(KERNELS)}


def _adapted(options: RecordOptions, syntax: Syntax, path: Path) -> dict[str, list[Definition]]:
    """The probes of the profile for the one kernel that the BTF is of."""
    try:
        btf = Btf(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f"this kernel takes no arguments by name, and its BTF cannot be read: {error.strerror}",
            where=str(path),
            hint="give --btf FILE (made by pahole --btf_encode_detached), or record with --events stock",
        ) from error
    kernel = kernel_of(btf)
    adapted = (adapt(each, syntax, btf) for each in definitions(options.profile, kernel, anon=options.anon))
    return {kernel: [each for each in adapted if each is not None]}


def _run(command: list[str], tracefs: Path) -> tuple[int, bool]:
    """Run the script; signals that would end this process are passed on to it, and it ends in order.

    SIGHUP that this process ignores (nohup) stays ignored.

    Returns:
        Exit status of the script, and whether a signal came.
    """
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    # Before the script starts: a shell cannot handle what is ignored when it starts, and SIGINT is so in the
    # background of another script; what has a handler here is not ignored there.
    before = {number: signal.signal(number, pass_on) for number in wanted}
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TRACEFS": str(tracefs)},
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )
        for number in received:  # while it started
            process.send_signal(number)
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, bool(received)


def _checked(options: RecordOptions, status: int, *, interrupted: bool) -> Recording:
    """The recording, after a look at the capture.

    Raises:
        OutputError: Events were lost.
        CaptureError: The capture cannot be read.
    """
    from captures.answers import GRADES  # only here: these load pyarrow
    from replay.inspect import inspect

    tables = inspect(options.output)
    lost = [row for row in tables["quality"].to_pylist() if row["kind"] == "lost_events"]
    if lost:
        known = [row["count"] for row in lost if row["count"] is not None]
        command = shlex.join(["replay", "inspect", str(options.output)])
        raise OutputError(
            f"the buffer lost {sum(known) or 'some'} events: what follows from the capture is not exact",
            path=options.output,
            hint=f"record again with --buffer {options.buffer_mib * 4} or less load; see: {command}",
        )
    records = {row["name"]: row["records"] for row in tables["event"].to_pylist()}
    answers = [(row["answer"], row["question"]) for row in tables["answer"].to_pylist()]
    return Recording(
        options.output,
        status,
        interrupted,
        None if options.profile is Profile.stock else records.get(_WALK, 0),
        {grade: tuple(name for given, name in answers if given == grade) for grade in GRADES},
    )
