"""Resident memory of a process, and what the kernel's OOM killer did: read from /proc."""

from __future__ import annotations

from pathlib import Path

_PEAK = "5\n"
"""Written to clear_refs: set VmHWM back to what is resident now (Documentation/filesystems/proc.rst)."""


def reset_peak() -> bool:
    """Let the peak of this process begin anew; False: this kernel does not let it."""
    try:
        Path("/proc/self/clear_refs").write_text(_PEAK)
    except OSError:
        return False
    return True


def peak_bytes(pid: int | str = "self") -> int | None:
    """Most resident memory since the last ``reset_peak``; None: the process is gone."""
    return _status_bytes(pid, "VmHWM:")


def anonymous_bytes(pid: int | str) -> int | None:
    """Resident memory that is not pages of files, which the kernel could drop; None: the process is gone."""
    return _status_bytes(pid, "RssAnon:")


def oom_kills() -> int | None:
    """Processes that the OOM killer ended since boot, on this machine; None: the kernel does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _status_bytes(pid: int | str, key: str) -> int | None:
    """One value of /proc/PID/status, where it is in kB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
