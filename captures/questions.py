"""What replay answers from a capture, and what a capture has to hold for it. Data, no logic.

A need is met by an event that has a role in ``captures.roles``, whoever made it and whatever it is called;
``event`` is what our own recipes and the kernel call it. ``captures.answers`` compares the questions with a
capture; ``replay inspect`` prints the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Need:
    """Something that a capture has to hold.

    Attributes:
        event: Name in our recipes, or of the stock event.
        table: The ``ev_*`` table that it becomes.
        constants: Which rows of that table (``Role.constants``).
        column: Column that has to be filled; None: the event alone is enough.
        occurs: Whether it has to occur, not only to have been recorded.
        kernel: The only kernels (``captures.recipes.KERNELS``) that have it; None: all.
        without: What an answer rests on where this is lacking, as a sentence.
    """

    event: str
    table: str
    constants: Mapping[str, bool | str] = field(default_factory=dict)
    column: str | None = None
    occurs: bool = False
    kernel: str | None = None
    without: str = ""

    @property
    def label(self) -> str:
        """What has to be recorded: the event, and its field."""
        return self.event if self.column is None else f"{self.event} {self.column}"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        name: Short name.
        asks: The question in words.
        exact: Why the answer is exact when nothing is lacking, as a sentence.
        ways: Sets of needs; one of them has to be met for any answer. The first is what recipes record.
        helps: What makes the answer exact; lacking, something is assumed.
        basis: Questions that this answer rests on: it is no better than theirs.
        assumes: What is assumed whatever the capture holds, as a sentence; None: nothing.
        modelled: What stock events answer without probes (``OF_MIGRATIONS``), as a sentence; None: nothing.
        is_check: Only for checking replay itself: nobody else has to record it.
        option: Option of ``replay record`` that records it, where the usual recipes do not; None: they do.
        durations: How much of the answer is durations, which take a clock that counts ns.
    """

    name: str
    asks: str
    exact: str = ""
    ways: tuple[tuple[Need, ...], ...] = ((),)
    helps: tuple[Need, ...] = ()
    basis: tuple[str, ...] = ()
    assumes: str | None = None
    modelled: str | None = None
    is_check: bool = False
    option: str | None = None
    durations: Literal["none", "part", "all"] = "none"


_ENTRY: Final = {"is_return": False}
_RETURN: Final = {"is_return": True}
WALK: Final = Need("ksmprobe:rmap_walk_ksm", "ev_walk", _ENTRY, occurs=True)
_WALK_RETURN: Final = Need("ksmprobe:rmap_walk_ksm_ret", "ev_walk", _RETURN, occurs=True)
_CALLER: Final = Need(
    "ksmprobe:rmap_walk_ksm", "ev_walk", _ENTRY, "rmap_one", without="Who asked for a walk is not known."
)
OF_MIGRATIONS: Final = (
    Need("ksm:ksm_merge_with_ksm_page", "ev_merge", occurs=True),
    Need("migrate:set_migration_pte", "ev_migration_pte", {"is_set": True}, occurs=True),
    Need("migrate:remove_migration_pte", "ev_migration_pte", {"is_set": False}, occurs=True),
    Need("syscalls:sys_enter_*", "ev_syscall", {"is_exit": False}),
    Need("syscalls:sys_exit_*", "ev_syscall", {"is_exit": True}),
    Need("exceptions:page_fault_user", "ev_fault", {"is_user": True}),
)
"""What tells of migrations of KSM folios without probes."""
_MODELLED: Final = (
    "Of migrations whose rmap_items stock events determine, over trees rebuilt from system calls by the "
    "kernel's rules."
)
_STALE: Final = "An rmap_item counts as listed even after ksmd took it off its stable node."
_INFERRED: Final = "Which pages a walk found mapped is inferred from merges, forks, faults and system calls."
_UNSEEN: Final = "Pages that were copied or unmapped in the meantime count as mapped."

_TREES: Final = (
    Need("ksmprobe:avc_insert", "ev_avc", {"is_insert": True}),
    Need("ksmprobe:avc_remove", "ev_avc", {"is_insert": False}),
    Need("ksmprobe:avc_insert", "ev_avc", {"is_insert": True}, "anon_pgoff", kernel="7.3"),
)
_OLDER: Final = "Which trees are older than the capture is not known: relatives stay unknown."

QUESTIONS: Final = (
    Question(
        "walks",
        "which walks of rmap_walk_ksm() ran, who asked for them, and how long each took",
        exact="Entry and return of every walk are recorded.",
        ways=((WALK, _WALK_RETURN),),
        helps=(_CALLER,),
        durations="part",
    ),
    Question(
        "iterations",
        "iterations and skips of every loop, under each strategy",
        exact="Every change of the anon_vma trees and of the stable tree is recorded.",
        ways=(
            (
                *_TREES,
                Need("ksmprobe:stable_tree_append", "ev_append"),
                WALK,
                _WALK_RETURN,
            ),
        ),
        modelled=_MODELLED,
        helps=(
            Need("ksmprobe:remove_rmap_item_from_tree", "ev_item_remove", _ENTRY, without=_STALE),
            Need("ksmprobe:remove_rmap_item_from_tree_ret", "ev_item_remove", _RETURN, without=_STALE),
            Need("ksmprobe:remove_node_from_stable_tree", "ev_node_remove", without=_STALE),
        ),
    ),
    Question(
        "ends",
        "where a walk ends early, because rmap_one() or done() says so",
        exact="Migration entries and mapcounts are recorded; of walks for reclaim and aging it is inferred.",
        ways=((_CALLER,),),
        modelled=_MODELLED,
        helps=(
            Need("migrate:set_migration_pte", "ev_migration_pte", {"is_set": True}, without=_INFERRED),
            Need("migrate:remove_migration_pte", "ev_migration_pte", {"is_set": False}, without=_INFERRED),
            Need("ksmprobe:rmap_walk_ksm", "ev_walk", _ENTRY, "mapcount", without=_INFERRED),
        ),
        basis=("iterations",),
    ),
    Question(
        "misses",
        "which mappings each strategy finds, and which it misses",
        exact="What maps and unmaps merged pages is recorded.",
        modelled=_MODELLED,
        helps=(
            Need("ksm:ksm_merge_with_ksm_page", "ev_merge", without="When a page was merged is inferred."),
            Need("exceptions:page_fault_user", "ev_fault", {"is_user": True}, without=_UNSEEN),
            Need(
                "exceptions:page_fault_kernel",
                "ev_fault",
                {"is_user": False},
                without="Merged pages that system calls wrote to count as mapped.",
            ),
            Need("syscalls:sys_enter_*", "ev_syscall", {"is_exit": False}, without=_UNSEEN),
            Need("syscalls:sys_exit_*", "ev_syscall", {"is_exit": True}, without=_UNSEEN),
            Need(
                "task:task_newtask",
                "ev_task",
                {"kind": "newtask"},
                without="Which tasks share an address space is inferred.",
            ),
        ),
        basis=("iterations", "ends"),
    ),
    Question(
        "causes",
        "which system call made a mapping be missed",
        exact="The system calls that change VMAs are recorded.",
        modelled=_MODELLED,
        ways=(
            (
                Need("syscalls:sys_enter_*", "ev_syscall", {"is_exit": False}),
                Need("syscalls:sys_exit_*", "ev_syscall", {"is_exit": True}),
            ),
        ),
        basis=("misses",),
    ),
    Question(
        "counts",
        "what the kernel itself counted, to check the replay",
        exact="The kernel's loops are recorded one by one; its durations include these probes.",
        ways=(
            (
                Need("ksmtruth:iter_first", "ev_obs_first", _ENTRY, occurs=True),
                Need("ksmtruth:iter_first_ret", "ev_obs_first", _RETURN, occurs=True),
                Need("ksmtruth:iter_next", "ev_obs_next"),
                Need("ksmtruth:one_*", "ev_obs_one", _ENTRY),
                Need("ksmtruth:one_*_ret", "ev_obs_one", _RETURN),
            ),
            (Need("ksm:ksm_rmap_loop", "ev_obs_loop", occurs=True),),
        ),
        is_check=True,
    ),
    Question(
        "time",
        "how long each strategy would take",
        ways=((WALK, _WALK_RETURN),),
        helps=(
            Need("sched:sched_switch", "ev_switch", without="Durations include what a walk is off its CPU."),
        ),
        assumes="Fitted to the durations of the walks that ran, where they tell what an iteration costs.",
        basis=("iterations",),
        durations="all",
    ),
    Question(
        "victims",
        "who waited for the lock of an anon_vma family, and behind which walk",
        exact="Waits for contended locks are recorded; they show from the end of spinning on.",
        ways=(
            (
                Need("lock:contention_begin", "ev_lock", {"is_end": False}),
                Need("lock:contention_end", "ev_lock", {"is_end": True}),
            ),
        ),
        basis=("iterations",),
        durations="all",
    ),
    Question(
        "relatives",
        "how many relatives each walk over an ordinary anonymous page visits, and how many map it",
        exact="Every such walk and every change of the trees is recorded; trees older than the capture stay "
        "unknown.",
        ways=(
            (
                Need("ksmprobe:rmap_walk_anon", "ev_anon_walk", _ENTRY, occurs=True),
                Need("ksmprobe:rmap_walk_anon_ret", "ev_anon_walk", _RETURN, occurs=True),
                *_TREES,
            ),
        ),
        helps=(
            Need("syscalls:sys_enter_*", "ev_syscall", {"is_exit": False}, without=_OLDER),
            Need("syscalls:sys_exit_*", "ev_syscall", {"is_exit": True}, without=_OLDER),
            Need(
                "migrate:remove_migration_pte",
                "ev_migration_pte",
                {"is_set": False},
                without="How many map a page that comes back from migration is not known.",
            ),
        ),
        option="--anon",
    ),
)
"""Every question; one comes after those that it rests on."""
