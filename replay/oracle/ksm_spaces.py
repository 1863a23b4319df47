"""Whose the address spaces are that KSM's events name, one event at a time: the twin of ``ksm.spaces``.

``ksm.spaces`` says which events tell it and why. Slow on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from replay.oracle.ksm_stock import Event

FORKS = ("clone", "clone3", "fork", "vfork")
EXECS = ("execve", "execveat")
OWN = ("madvise", "prctl")
CHANGES = (
    *("mmap", "munmap", "mprotect", "pkey_mprotect", "madvise", "mremap", "brk", "mseal"),
    *("mlock", "mlock2", "munlock", "mlockall", "munlockall"),
)


class Spaces:
    """Answers, for a pointer of an mm and a place: which modelled address space is it?

    Args:
        events: The ``ev_*`` tables.
        spaces: ``ksm.modelled.modelled_spaces``.
        lives: Lives of modelled intervals.
    """

    def __init__(self, events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame, lives: pl.DataFrame) -> None:
        self.calls, self.tasks, self.enters, self.ends, self.locks = (
            events[name].sort("seq").to_dicts()
            for name in ("ev_syscall", "ev_task", "ev_ksm_enter", "ev_exit_mmap", "ev_mmap_lock")
        )
        self.spaces, self.lives = spaces.to_dicts(), lives.to_dicts()

    def of(self, mm: int, at: int) -> int | None:
        """The address space that the pointer ``mm`` means at the place ``at``; None: nothing tells."""
        entered = [row for row in self.enters if row["mm"] == mm and row["seq"] <= at]
        whose = self._entered(entered[-1]) if entered else None
        if whose is not None:
            found = self._of_task(whose[0], max(whose[1], at))
        else:
            ended = [row for row in self.ends if row["mm"] == mm and row["seq"] >= at]
            found = self._ended(ended[0]) if ended else None
        return found if found is not None else self._locked(mm, at)

    def _entered(self, row: Event) -> tuple[int, int] | None:
        """Whose address space was put on ksmd's list, from which place on; None: not known."""
        call = self._call(row["pid"], row["seq"])
        if call in OWN:
            return row["pid"], row["seq"]
        later = [task for task in self.tasks if task["pid"] == row["pid"] and task["seq"] >= row["seq"]]
        if call in EXECS:
            execs = [task["seq"] for task in later if task["kind"] == "exec"]
            return (row["pid"], execs[0]) if execs else (row["pid"], row["seq"])
        births = [task for task in later if task["kind"] in ("newtask", "fork")]
        if call in FORKS and births and births[0]["child_pid"] is not None:
            return births[0]["child_pid"], births[0]["seq"]
        return None

    def _ended(self, row: Event) -> int | None:
        """The address space that exit_mmap() ended, if it was the task's own."""
        pid, at = row["pid"], row["seq"]
        exits = [task["seq"] for task in self.tasks if task["pid"] == pid and task["kind"] == "exit"]
        follows = [seq for seq in exits if seq >= at]
        entries = [
            call["seq"]
            for call in self.calls
            if call["pid"] == pid and not call["is_exit"] and call["seq"] >= at
        ]
        exits_next = bool(follows) and (not entries or entries[0] > follows[0])
        if self._call(pid, at) in EXECS or exits_next:
            return self._of_task(pid, at)
        left = max((seq for seq in exits if seq <= at), default=None)
        if left is None:
            return None
        births = [
            task["seq"]
            for task in self.tasks
            if task["kind"] in ("newtask", "fork") and task["child_pid"] == pid and left <= task["seq"] <= at
        ]
        others = [end for end in self.ends if end["pid"] == pid and left <= end["seq"] < at]
        number = self._of_task(pid, left)
        died = [life["died"] for life in self.lives if life["mm"] == number]
        return number if not births and not others and died and max(died) <= at else None

    def _locked(self, mm: int, at: int) -> int | None:
        """By who took the lock last before, else first after, if the address space was there all the time."""
        known = []
        for row in self.locks:
            if row["mm"] == mm and row["is_write"] and self._call(row["pid"], row["seq"]) in CHANGES:
                number = self._of_task(row["pid"], row["seq"])
                own = [life for life in self.lives if life["mm"] == number]
                if number is not None and own:
                    since, until = min(life["born"] for life in own), max(life["died"] for life in own)
                    known.append((row["seq"], number, since, until))
        before, after = [row for row in known if row[0] <= at], [row for row in known if row[0] >= at]
        if before and before[-1][3] > at:
            return before[-1][1]
        return after[0][1] if after and after[0][2] <= at else None

    def _call(self, pid: int, at: int) -> str | None:
        """The call that a task is in; None: none."""
        own = [call for call in self.calls if call["pid"] == pid and call["seq"] <= at]
        return None if not own or own[-1]["is_exit"] else own[-1]["name"]

    def _of_task(self, pid: int, at: int) -> int | None:
        """The address space that a task runs in: by what it did last, else by what it does next."""
        own = [row for row in self.spaces if row["pid"] == pid]
        before, after = [row for row in own if row["seq"] <= at], [row for row in own if row["seq"] >= at]
        found = before[-1]["mm"] if before else None
        if found is None and after and not after[0]["birth"]:
            found = after[0]["mm"]
        return found
