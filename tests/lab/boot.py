"""Boots a kernel under QEMU on the files of this machine: two CPUs, two NUMA nodes, no image to build."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

GUEST = Path(__file__).with_name("guest.sh").resolve()
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
NODE_MIB = 1536


def boot(vmlinuz: Path, out: Path, variables: dict[str, str], accel: str, timeout_s: float) -> str:
    """Run ``guest.sh`` as the first process of a guest until it switches the guest off.

    Args:
        vmlinuz: The kernel; it needs virtiofs built in, as Debian's cloud kernels have it.
        out: Folder that the guest writes into.
        variables: Environment of ``guest.sh``.
        accel: QEMU's accelerator, ``tcg`` or ``kvm``.
        timeout_s: When to give up.

    Returns:
        What the guest printed.
    """
    with ExitStack() as running:
        root, results = (_share(folder, out, running) for folder in (Path("/"), out))
        command = ["qemu-system-x86_64", "-accel", accel, "-cpu", "max", "-smp", "2"]
        command += [
            "-m",
            f"{2 * NODE_MIB}M",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
            "-kernel",
            str(vmlinuz),
        ]
        for node in (0, 1):
            memory = f"memory-backend-memfd,id=m{node},size={NODE_MIB}M,share=on"
            command += ["-object", memory, "-numa", f"node,nodeid={node},memdev=m{node},cpus={node}"]
        for tag, socket in (("root", root), ("out", results)):
            command += ["-chardev", f"socket,id={tag},path={socket}"]
            command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
        words = "console=ttyS0 quiet panic=-1 rootfstype=virtiofs root=root ro"
        environment = " ".join(f"{name}={value}" for name, value in variables.items())
        command += ["-append", f"{words} init={GUEST} {environment}"]
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
