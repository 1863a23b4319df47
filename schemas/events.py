"""Event tables of address spaces and tasks: interval tree, faults, system calls, markers.

Every event table begins with the same four columns (``COMMON``). One row is one event; rows are in
order of ``seq``. Tables of events that the capture does not have are there, and empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.kinds import flag, int32, int64, nanoseconds, pgoff, pointer, text, uint64, user_address
from schemas.table import Table

if TYPE_CHECKING:
    from schemas.table import Column

NOT_RECORDED: Final = "the event of this capture has no such field"
IS_RETURN: Final = "False: entry of the function; true: its return."

COMMON: Final = (
    int64(
        "seq",
        "Place of the event in the total order of the capture: by (ts_ns, cpu, order within the cpu). "
        "Unique over all event tables of one capture; numbers may be left out.",
        "captures: the order in which records are merged",
    ),
    nanoseconds("ts_ns", "Time of the event, in the trace clock of the capture.", "ring buffer record"),
    int32("cpu", "CPU on which the event was recorded.", "ring buffer of that cpu"),
    int32("pid", "Thread id of the task that was running (the kernel's pid, not the tgid).", "common_pid"),
)


def event_table(name: str, doc: str, *columns: Column) -> Table:
    """An event table: the common columns, then its own."""
    return Table(name=name, version="1.0", doc=doc, columns=(*COMMON, *columns))


def syscall_argument(number: int) -> Column:
    """Column of one raw system call argument."""
    return uint64(
        f"arg{number}",
        f"Argument {number} of the call as the raw register value.",
        "syscalls:sys_enter_*",
        null="a return, or the call has fewer arguments",
    )


_INSERT = "anon_vma_interval_tree_insert()/_remove(); 7.3: anon_rmap_tree_insert()/_remove()"

EV_AVC: Final = event_table(
    "ev_avc",
    "One anon_vma_chain put into, or taken out of, the interval tree of one anon_vma.",
    flag("is_insert", "True: inserted; false: removed.", _INSERT),
    pointer("avc", "The struct anon_vma_chain.", _INSERT),
    pointer("anon_vma", "avc->anon_vma, whose tree it is.", _INSERT),
    pointer("vma", "avc->vma.", _INSERT),
    pointer("mm", "vma->vm_mm.", _INSERT, null=NOT_RECORDED),
    user_address("vm_start", "First byte of the VMA at that instant.", _INSERT, null=NOT_RECORDED),
    user_address("vm_end", "First byte after the VMA at that instant.", _INSERT, null=NOT_RECORDED),
    pgoff("vm_pgoff", "vma->vm_pgoff: the key of the tree up to 7.2.", _INSERT, null=NOT_RECORDED),
    pgoff(
        "anon_pgoff",
        "__vm_anon_pgoff_hi << 32 | __vm_anon_pgoff_lo: the key of the tree from 7.3 on.",
        _INSERT,
        null="the kernel has no such field (up to 7.2), or the event does not",
    ),
    uint64("vm_flags", "vma->vm_flags.", _INSERT, null=NOT_RECORDED, unit="VM_* bits"),
)

EV_FAULT: Final = event_table(
    "ev_fault",
    "One page fault.",
    flag("is_user", "True: page_fault_user; false: page_fault_kernel.", "name of the event"),
    user_address("address", "Faulting address.", "exceptions:page_fault_user/kernel"),
    uint64(
        "error_code",
        "Error code of the architecture; x86: bit 0 protection, bit 1 write, bit 2 user mode.",
        "exceptions:page_fault_user/kernel",
        unit="X86_PF_* bits",
    ),
)

EV_SYSCALL: Final = event_table(
    "ev_syscall",
    "Entry into or exit from one system call.",
    flag("is_exit", "False: sys_enter; true: sys_exit.", "name of the event"),
    text("name", 'Name of the call without prefix, such as "mremap".', "name of the event"),
    *(syscall_argument(number) for number in range(6)),
    int64("ret", "Return value; -4095..-1 is a negated errno.", "syscalls:sys_exit_*", null="an entry"),
)

EV_TASK: Final = event_table(
    "ev_task",
    "Birth, death or exec of a task. `pid` is the task that was running; the task that it is about is "
    "`child_pid` for newtask and fork, and `pid` itself for exec and exit.",
    text("kind", "newtask, fork, exec, exit or free.", "task:task_newtask, sched:sched_process_*"),
    int32(
        "child_pid",
        "Thread id of the new task (newtask, fork), or of the task that is freed (free).",
        "task_newtask.pid, sched_process_fork.child_pid, sched_process_free.pid",
        null="exec and exit: the event is about `pid`",
    ),
    uint64(
        "clone_flags",
        "Flags of the clone; CLONE_VM (0x100): the mm is shared, nothing is copied.",
        "task:task_newtask; perf's fork record of a thread",
        null="another kind than newtask, and nothing tells that it is a thread",
        unit="CLONE_* bits",
    ),
    text("comm", "Name of the task that the event is about.", "comm, child_comm", null=NOT_RECORDED),
    int32(
        "old_pid",
        "Thread id that the task had before exec; a thread that is not the leader takes the leader's.",
        "sched_process_exec.old_pid",
        null="another kind than exec, or not recorded",
    ),
)

EV_EXIT_MMAP: Final = event_table(
    "ev_exit_mmap",
    "End of exit_mmap(): every VMA of the mm is gone.",
    pointer("mm", "The struct mm_struct.", "mmap:exit_mmap"),
)

EV_MMAP_LOCK: Final = event_table(
    "ev_mmap_lock",
    "The lock of an address space taken, or tried: by a task of its own, or another that looks at it.",
    pointer("mm", "The struct mm_struct.", "mmap_lock:mmap_lock_acquire_returned"),
    flag("is_write", "For writing; else for reading.", "mmap_lock:mmap_lock_acquire_returned"),
)

EV_MARKER: Final = event_table(
    "ev_marker",
    "A text that user space wrote into the trace (trace_marker).",
    text("text", "The text, without the line break at its end.", "ftrace:print"),
)

EV_STACK: Final = event_table(
    "ev_stack",
    "User stack of the task at the event of the same task before it.",
    text(
        "frames",
        "Addresses in hexadecimal, the innermost first, separated by ' < '.",
        "ftrace:user_stack; user frames of perf's call chains",
        null="no frame was found",
    ),
)

EV_LOCK: Final = event_table(
    "ev_lock",
    "Begin or end of a wait for a contended lock; only waits that outlast spinning are traced.",
    flag("is_end", "The wait is over.", "lock:contention_begin, lock:contention_end"),
    pointer("lock", "The lock: of an rwsem, the struct rw_semaphore.", "lock_addr"),
    uint64(
        "lock_flags",
        "LCB_F_SPIN 1, LCB_F_READ 2, LCB_F_WRITE 4, LCB_F_RT 8, LCB_F_PERCPU 16, LCB_F_MUTEX 32.",
        "lock:contention_begin",
        null="the end of a wait",
        unit="LCB_F_* bits",
    ),
)

EV_SWITCH: Final = event_table(
    "ev_switch",
    "A CPU goes from one task to another.",
    int32("prev_pid", "Thread id of the task that leaves the CPU.", "sched:sched_switch"),
    int32("next_pid", "Thread id of the task that runs next; 0: the idle task.", "sched:sched_switch"),
)

TABLES: Final = (
    EV_AVC,
    EV_FAULT,
    EV_SYSCALL,
    EV_TASK,
    EV_EXIT_MMAP,
    EV_MMAP_LOCK,
    EV_MARKER,
    EV_STACK,
    EV_LOCK,
    EV_SWITCH,
)
