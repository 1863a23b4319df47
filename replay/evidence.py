"""What the state of the trees rests on: the tree probes, or the kernel's rules over system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from replay.agreement import Agreement, agreement
from replay.every_node import EVERY_NODE
from replay.exact import Exact, replay_exact, replay_state
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from replay.model_rules import KernelRules
    from replay.options import AnalyzeOptions

EVIDENCE: Final = ("exact", "modelled", "both")
RULES: Final = ("6.12", "7.3")
WALKS: Final = ("observed", EVERY_NODE)
_OF_PROBES: Final = ("ev_avc", "ev_append", "ev_item_remove", "ev_node_remove", "ev_walk")


def check(options: AnalyzeOptions) -> None:
    """Refuse options that nobody knows.

    Raises:
        UsageError: ``evidence``, ``kernel_rules`` or ``walks`` is none of the known ones.
    """
    for name, value, known in (
        ("--evidence", options.evidence, EVIDENCE),
        ("--kernel-rules", options.kernel_rules, RULES),
        ("--walks", options.walks, WALKS),
    ):
        if value is not None and value not in known:
            raise UsageError(f"{value!r} is not known", where=name, hint=f"known are {', '.join(known)}")


def rules_of(release: str | None, events: Mapping[str, pl.DataFrame]) -> KernelRules:
    """The rules of the traced kernel: by its tree key where probes tell it, else by its release.

    A kernel that does not say what it is is taken for one of up to 7.2.
    """
    trees = events["ev_avc"]
    if not trees.is_empty():
        return "7.3" if trees["anon_pgoff"].null_count() < len(trees) else "6.12"
    digits = [int(part) for part in (release or "").split("-")[0].split(".")[:2] if part.isdigit()]
    return "7.3" if tuple(digits) >= (7, 3) else "6.12"


def rebuild(
    events: dict[str, pl.DataFrame],
    options: AnalyzeOptions,
    *,
    probed: bool,
    release: str | None,
    events_lost: bool,
) -> tuple[Exact, Agreement | None, pl.DataFrame | None]:
    """Rebuild the state by the evidence that was asked for, and replay the walks over it.

    Modelled trees carry numbers, not the kernel's pointers, so what probes tell of KSM cannot be joined to
    them: modelled, no walk is replayed.

    Args:
        events: The ``ev_*`` tables.
        options: What is asked for.
        probed: Whether the capture has the tree probes.
        release: Release of the traced kernel.
        events_lost: Whether events were lost.

    Returns:
        State and walks; for ``both`` the agreement of the model with the probes; where the model ran, the
        merges that it refused (``model.Modelled.refusals``).
    """
    evidence = options.evidence or ("exact" if probed else "modelled")
    if evidence == "exact":
        return replay_exact(events, options.strategies), None, None
    from replay.model import reconstruct  # costs its compiler only those who ask for it

    rules = cast("KernelRules", options.kernel_rules) if options.kernel_rules else rules_of(release, events)
    modelled = reconstruct(events, rules)
    if evidence == "both":
        agrees = agreement(events, modelled.lives, rules, events_lost=events_lost)
        return replay_exact(events, options.strategies), agrees, modelled.refusals
    blind = {name: frame.clear() if name in _OF_PROBES else frame for name, frame in events.items()}
    replayed = replay_state(blind, modelled.lives, modelled.versions, options.strategies)
    return replayed, None, modelled.refusals
