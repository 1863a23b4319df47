"""Boots a kernel under QEMU on the files of this machine: two CPUs, two NUMA nodes, no image to build."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
CPUS = 2
MEMORY_MIB = 3072


@dataclass(frozen=True)
class Machine:
    """What boots.

    Attributes:
        emulator: QEMU.
        accel: Its accelerator, ``tcg`` or ``kvm``.
        vmlinuz: The kernel; it needs virtiofs built in, as Debian's cloud kernels have it.
        nodes: NUMA nodes, 1 or 2.
    """

    emulator: str
    accel: str
    vmlinuz: Path
    nodes: int = 2


def boot(machine: Machine, init: Path, out: Path, variables: dict[str, str], timeout_s: float) -> str:
    """Run ``init`` as the first process of a guest until it switches the guest off.

    Args:
        machine: What boots.
        init: A program; the guest's root is the host's, read only.
        out: Folder that the guest writes into.
        variables: Environment of ``init``.
        timeout_s: When to give up.

    Returns:
        What the guest printed.
    """
    with ExitStack() as running:
        root, results = (_share(folder, out, running) for folder in (Path("/"), out))
        command = [machine.emulator, "-accel", machine.accel, "-cpu", "max", "-smp", str(CPUS)]
        command += ["-m", f"{MEMORY_MIB}M", "-nodefaults", "-display", "none", "-audio", "none"]
        command += ["-serial", "stdio", "-no-reboot"]
        for node in range(machine.nodes):
            share = f"memory-backend-memfd,id=m{node},size={MEMORY_MIB // machine.nodes}M,share=on"
            cpus = f"{node}" if machine.nodes == CPUS else f"0-{CPUS - 1}"
            command += ["-object", share, "-numa", f"node,nodeid={node},memdev=m{node},cpus={cpus}"]
        for tag, socket in (("root", root), ("out", results)):
            command += ["-chardev", f"socket,id={tag},path={socket}"]
            command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        words = "console=ttyS0 quiet panic=-1 rootfstype=virtiofs root=root ro"
        environment = " ".join(f"{name}={value}" for name, value in variables.items())
        command += ["-kernel", str(machine.vmlinuz), "-append", f"{words} init={init} {environment}"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    return (done.stdout + done.stderr).decode(errors="replace")


def _share(folder: Path, work: Path, running: ExitStack) -> Path:
    """Serve a folder to a guest until ``running`` ends; the socket."""
    program = next((each for each in VIRTIOFSD if shutil.which(each)), None)
    if program is None:
        raise FileNotFoundError("no virtiofsd: install qemu-system-common, or virtiofsd")
    socket = work.parent / f"{work.name}-{folder.name or 'root'}.sock"
    socket.unlink(missing_ok=True)
    options = ["-o", f"source={folder}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    with (work.parent / f"{socket.stem}.log").open("wb") as log:
        server = subprocess.Popen([program, f"--socket-path={socket}", *options], stdout=log, stderr=log)
    running.callback(server.wait)
    running.callback(server.terminate)
    for _ in range(100):
        if socket.exists():
            return socket
        time.sleep(0.05)
    raise TimeoutError(f"{program} does not answer: it needs root")
