"""Names of tasks at an instant: thread ids are used again, and exec changes the name.

A capture lists one name a thread id, the last. Births, execs and exits tell when that one began to hold, and
what came before. A name that a task gave itself (prctl, /proc/PID/comm) shows at its exit only.

Kernel: fs/exec.c __set_task_comm(); include/trace/events/sched.h, task.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

BIRTHS: Final = ("newtask", "fork")


def with_names(
    rows: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """``rows`` with the name that each task had then.

    Args:
        rows: ``pid`` and ``seq`` (place), and other columns; with ``comm``, what events tell themselves.
        events: ``ev_task`` of the ``ev_*`` tables.
        comms: The last name of each thread id.

    Returns:
        The rows in their order, with ``comm``: the name that the row had; else that at the exit which ended
        this task; else the last name of its thread id, if no other task and no exec came after; else that of
        its birth or exec. Null: none of these is in the capture.
    """
    kind = pl.col("kind")
    born = events["ev_task"].filter(kind.is_in(BIRTHS)).select("seq", "kind", "comm", pid="child_pid")
    other = events["ev_task"].filter(kind.is_in(("exec", "exit"))).select("seq", "kind", "comm", "pid")
    facts = pl.concat([born, other]).drop_nulls("pid").sort("seq")
    begun = facts.filter(kind != "exit").select("pid", "seq", begun="comm")
    ended = facts.select("pid", "seq", end="kind", ended="comm")
    later = facts.filter(kind != "exit").select("pid", "seq", later="kind")
    last = pl.DataFrame(
        {"pid": list(comms), "last": list(comms.values())}, schema={"pid": pl.Int32, "last": pl.String}
    )
    asked = rows.select("pid", "seq").with_row_index("row").sort("seq")
    found = (
        asked.join_asof(begun, on="seq", by="pid", check_sortedness=False)
        .join_asof(ended, on="seq", by="pid", strategy="forward", check_sortedness=False)
        .join_asof(later, on="seq", by="pid", strategy="forward", check_sortedness=False)
        .join(last, on="pid", how="left", maintain_order="left")
        .sort("row")
    )
    at_exit = pl.when(pl.col("end") == "exit").then("ended")
    at_last = pl.when(pl.col("later").is_null()).then("last")
    told = found.select(comm=pl.coalesce(at_exit, at_last, "begun"))["comm"]
    own = [pl.col("comm")] if "comm" in rows.columns else []
    return rows.with_columns(comm=pl.coalesce(*own, told))
