"""What the kernel writes down when it maps something (perf's mmap2 records), as lines of snapshots.

execve() maps the program, its interpreter and the stack without a system call of their own: the records are
all that tells where they are. Inside of a call that the model follows it knows itself what is mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def recorded(
    lines: pl.DataFrame, events: Mapping[str, pl.DataFrame], followed: Collection[str]
) -> pl.DataFrame:
    """The records that the model needs, each at its place.

    The event of an exec (sched_process_exec) comes when everything is mapped, so what it mapped is told
    there; perf's own comes before that. The stack is made at the highest address, then moved to where
    ``[stack]`` is recorded (setup_arg_pages()): what execve() recorded before is gone. The first segment of a
    file is recorded with the length of the whole, of which the rest is unmapped (elf_map()): it ends where
    the next one begins, at the latest.

    Args:
        lines: Rows of ``proc_map`` with ``is_record``.
        events: Tables ``ev_syscall`` and ``ev_task``.
        followed: System calls that the model follows.

    Returns:
        ``lines`` in order, with ``is_new``: it is of a VMA that execve() made.
    """
    tasks = events["ev_task"].filter(pl.col("kind") != "free")
    called = pl.when("is_exit").then(pl.lit("")).otherwise("name")
    steps = pl.concat(
        [
            events["ev_syscall"].select("pid", "seq", "ts_ns", step=called),
            tasks.select("pid", "seq", "ts_ns", step="kind"),
        ]
    ).sort("seq")
    before, behind = (
        steps.rename({name: f"{name}_{side}" for name in ("seq", "ts_ns", "step")})
        for side in ("before", "behind")
    )
    placed = (
        lines.sort("place")
        .join_asof(before, left_on="place", right_on="seq_before", by="pid", check_sortedness=False)
        .join_asof(
            behind,
            left_on="place",
            right_on="seq_behind",
            by="pid",
            strategy="forward",
            check_sortedness=False,
        )
    )
    early = (pl.col("step_behind") == "exec").fill_null(False)
    late = (pl.col("step_before") == "exec").fill_null(False)
    same, stack = ("pid", "exec"), (pl.col("name") == "[stack]").fill_null(False)
    following = pl.col("vm_start").shift(-1).over(same)
    is_cut = following.is_between("vm_start", "vm_end", closed="none").fill_null(False)
    return (
        placed.filter(early | ~pl.col("step_before").fill_null("").is_in(list(followed)))
        .with_columns(
            exec=pl.when(early).then("seq_behind").when(late).then("seq_before"),
            place=pl.when(early).then("seq_behind").otherwise("place"),
            end_ns=pl.when(early).then("ts_ns_behind").otherwise("end_ns"),
            is_new=early | late,
        )
        .filter(~pl.col("is_new") | ((stack.cum_sum() > 0) | ~stack.any()).over(same))
        .with_columns(vm_end=pl.when(is_cut & pl.col("is_new")).then(following).otherwise("vm_end"))
        .select(*lines.columns, "is_new")
    )
