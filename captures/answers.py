"""Which questions a capture can answer: ``captures.questions`` compared with what the capture holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa

from captures.canonical import syscall_names
from captures.matching import Match, match_all
from captures.questions import OF_MIGRATIONS, QUESTIONS, WALK, Need, Question
from captures.recipes import KERNELS
from schemas.provenance import NO_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from captures.info import Capture

Grade = Literal["exact", "assumed", "modelled", "not"]

GRADES: Final = ("exact", "assumed", "modelled", "not")
"""From the best to none."""

_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")
_FIRST_OF_7_3: Final = (7, 3)
_LOSSES: Final = frozenset({"lost_events", "corrupt", "truncated"})
"""Kinds of rows of table ``quality`` that tell of events that are not there."""

_NO_DURATIONS: Final = "The clock counts no ns: durations are not known."


@dataclass(frozen=True)
class Answer:
    """How well a capture answers one question.

    Attributes:
        question: The question.
        grade: One of ``GRADES``.
        reason: Why, as sentences.
        lacking: What would have to be recorded for a better answer.
    """

    question: Question
    grade: Grade
    reason: str
    lacking: tuple[str, ...]


@dataclass(frozen=True)
class Holdings:
    """What a capture holds, as far as questions are concerned.

    Attributes:
        matches: Events that have a role, with or without all fields for it, whether or not they occur.
        calls: Events of system calls that change address spaces, tasks or pages, and that it knows.
        counts: Records by event.
        kernels: Kernels (``captures.recipes.KERNELS``) that it may be from.
        callers_known: Whether the functions that asked for walks have names.
        has_losses: Whether events were lost, by the kernel or with a part of the file.
        has_durations: Whether the clock counts ns.
    """

    matches: tuple[Match, ...]
    calls: frozenset[str]
    counts: Mapping[str, int]
    kernels: tuple[str, ...]
    callers_known: bool
    has_losses: bool
    has_durations: bool

    @classmethod
    def of(cls, capture: Capture) -> Holdings:
        """Look at a capture; reads it once more where callers of walks are addresses."""
        matches = tuple(match_all(capture))
        kinds = set(capture.quality()["kind"].to_pylist())
        return cls(
            matches=matches,
            calls=frozenset(syscall_names(capture)),
            counts=capture.event_counts(),
            kernels=kernels(matches, capture.info.kernel_release),
            callers_known=_callers_known(capture, matches),
            has_losses=bool(_LOSSES & kinds),
            has_durations=NO_NS not in kinds,
        )

    def meets(self, need: Need) -> bool:
        """Whether the capture holds what is needed."""
        if need.kernel is not None and self.kernels != (need.kernel,):
            return True
        if need.table == "ev_syscall":
            way = "syscalls:sys_exit_" if need.constants["is_exit"] else "syscalls:sys_enter_"
            return any(name.startswith(way) for name in self.calls)
        if need.table == "ev_walk" and need.column == "rmap_one" and not self.callers_known:
            return False
        return any(
            not each.lacking
            and each.role.table == need.table
            and need.constants.items() <= each.role.constants.items()
            and (need.column is None or need.column in each.sources)
            and (not need.occurs or each.name in self.counts)
            for each in self.matches
        )

    def tells_migrations(self) -> bool:
        """Whether stock events tell of migrations of KSM folios, and no probe does of walks."""
        stock = all(self.meets(need) for need in OF_MIGRATIONS)
        return stock and not self.meets(WALK) and not self.has_losses

    def is_known(self, need: Need) -> bool:
        """Whether the capture knows the event, occurring or not."""
        return self.meets(replace(need, occurs=False))


def answers(holdings: Holdings) -> list[Answer]:
    """The answer to every question, in their order."""
    given: dict[str, Answer] = {}
    for question in QUESTIONS:
        given[question.name] = _answer(question, holdings, given)
    return list(given.values())


def kernels(matches: Iterable[Match], release: str | None) -> tuple[str, ...]:
    """Which kernels a capture may be from.

    The names of functions and fields that its probes have found decide; without any, the release does.
    """
    for each in matches:
        if each.role.table == "ev_avc":
            is_new = "anon_pgoff" in each.sources or "anon_rmap_tree" in each.name
            return ("7.3",) if is_new else ("6.12",)
    number = _RELEASE.match(release or "")
    if number is None:
        return tuple(KERNELS)
    return ("7.3",) if (int(number[1]), int(number[2])) >= _FIRST_OF_7_3 else ("6.12",)


def _answer(question: Question, holdings: Holdings, given: Mapping[str, Answer]) -> Answer:
    ways = [[need for need in way if not holdings.meets(need)] for way in question.ways]
    unmet = ways[0] if all(ways) else []
    helps = [need for need in question.helps if not holdings.meets(need)]
    below = [given[name] for name in question.basis]
    lacking = tuple(dict.fromkeys(need.label for need in (*unmet, *helps) if not holdings.is_known(need)))
    worst = max(below, key=lambda each: GRADES.index(each.grade), default=None)
    if question.modelled and holdings.tells_migrations():
        return Answer(question, "modelled", question.modelled, lacking)
    if question.durations == "all" and not holdings.has_durations:
        return Answer(question, "not", _NO_DURATIONS, (*lacking, "a clock of ns (-C mono, -k mono)"))
    if unmet:
        return Answer(question, "not", _unmet_reason(question, unmet, holdings), lacking)
    if worst is not None and worst.grade in ("not", "modelled"):
        return Answer(question, "not", f"There is no answer to: {worst.question.name}.", lacking)
    reasons = [] if question.assumes is None else [question.assumes]
    reasons += dict.fromkeys(need.without for need in helps)
    assumed = [each.question.name for each in below if each.grade == "assumed"]
    reasons += [f"It rests on: {', '.join(assumed)}."] if assumed else []
    if question.durations == "part" and not holdings.has_durations:
        reasons.append(_NO_DURATIONS)
    if holdings.has_losses:
        reasons.append("Events were lost: what they told is not known.")
    if reasons:
        return Answer(question, "assumed", " ".join(reasons), lacking)
    return Answer(question, "exact", question.exact, lacking)


def _unmet_reason(question: Question, unmet: list[Need], holdings: Holdings) -> str:
    if any(not holdings.is_known(need) for need in unmet):
        how = "" if question.option is None else f" `replay record {question.option}` records it."
        return f"It is not recorded.{how}"
    return f"Recorded, but never happened: {', '.join(dict.fromkeys(need.label for need in unmet))}."


def _callers_known(capture: Capture, matches: Iterable[Match]) -> bool:
    for each in matches:
        source = each.sources.get("rmap_one")
        if source is None or each.name not in capture.event_counts():
            continue
        values = capture.decode([each.name])[each.name][source.names[0]]
        if not pa.types.is_integer(values.type):
            return True
        return any(capture.symbol(address) is not None for address in values.unique().to_pylist())
    return True
