"""What the state of the trees rests on: the tree probes, or the kernel's rules over system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import polars as pl

from replay.findings.every_node import EVERY_NODE
from replay.ksm.other_kernel import OtherKernel, by_rules_of
from replay.ksm.stock import APART, Stock, replay_stock
from replay.model.agreement import Agreement, agreement
from replay.state.kernel import rules_for
from replay.state.lifetimes import avc_lives
from replay.walks.exact import Exact, replay_exact, replay_state
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.options import AnalyzeOptions
    from replay.state.gaps import Gaps
    from replay.state.kernel import KernelRules

EVIDENCE: Final = ("exact", "modelled", "both")
RULES: Final = ("6.12", "7.3")
WALKS: Final = ("observed", EVERY_NODE)
_IN_LIVES: Final = ("cpu", "avc", "anon_vma", "vma", "vm_start", "vm_end", "vm_pgoff")
_OF_PROBES: Final = ("ev_avc", "ev_append", "ev_item_remove", "ev_node_remove")


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
    """The rules of the traced kernel: by its tree key where probes tell it, else by its release."""
    trees = events["ev_avc"]
    if not trees.is_empty():
        return "7.3" if trees["anon_pgoff"].null_count() < len(trees) else "6.12"
    return rules_for(release)


def _stock(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """A table without what probes tell, with room between its places."""
    probed = name in (*_OF_PROBES, "ev_walk") or name.startswith("ev_obs_")
    return (frame.clear() if probed else frame).with_columns(pl.col("seq") * APART)


class Rebuilt(NamedTuple):
    """What the capture's history came to.

    Attributes:
        events: The events that this rests on; modelled, no probe's, and intervals in the place of ``ev_avc``.
        exact: State and walks, by the evidence asked for.
        agrees: For ``both``: how well the model agrees with the probes.
        refusals: Where the model ran: the merges that it refused (``model.Modelled.refusals``).
        other: With probes and ``kernel_rules``: the same history by these rules.
        stock: With modelled evidence: what stock events tell of KSM.
        doubts: Where the model ran: ``model.Modelled.doubts``.
    """

    events: Mapping[str, pl.DataFrame]
    exact: Exact
    agrees: Agreement | None = None
    refusals: pl.DataFrame | None = None
    other: OtherKernel | None = None
    stock: Stock | None = None
    doubts: Mapping[str, int] | None = None


def rebuild(
    events: dict[str, pl.DataFrame],
    options: AnalyzeOptions,
    *,
    probed: bool,
    release: str | None,
    gaps: Gaps | None,
    before: Mapping[str, pl.DataFrame],
) -> Rebuilt:
    """Rebuild the state by the evidence that was asked for, and replay the walks over it.

    Modelled, a capture without probes on walks has the migrations that KSM's stock events determine. No walk
    is replayed where these events are missing or some were lost; of walks that probes saw it is known that
    they ran, and how long.

    Args:
        events: The ``ev_*`` tables. Where probes are all the evidence, ``ev_avc`` loses columns: they are in
            the lives then, and take the most memory of all.
        options: What is asked for.
        probed: Whether the capture has the tree probes.
        release: Release of the traced kernel.
        gaps: When events were lost; None: none were.
        before: Tables ``proc_map`` and ``proc_thread``: what was there when the capture began.
    """
    evidence = options.evidence or ("exact" if probed else "modelled")
    asked = cast("KernelRules | None", options.kernel_rules)
    if evidence == "exact" and asked is None:
        state = avc_lives(events["ev_avc"], events["ev_syscall"], gaps, events["ev_exit_mmap"])
        events["ev_avc"] = events["ev_avc"].drop(_IN_LIVES)
        return Rebuilt(events, replay_state(events, *state, options.strategies, gaps))
    from replay.model.rebuild import reconstruct  # costs its compiler only those who ask for it

    rules = asked or rules_of(release, events)
    told = gaps is None and events["ev_walk"].is_empty() and not events["ev_merge"].is_empty()
    if evidence == "modelled" and told:
        events = {name: _stock(name, frame) for name, frame in events.items()}
        place = pl.when(pl.col("place") >= 0).then(pl.col("place") * APART).otherwise("place")
        maps = {"proc_map": before["proc_map"].with_columns(place)}
        modelled = reconstruct({**events, **before, **maps}, rules)
        stock = replay_stock(events, modelled, options.strategies)
        events["ev_avc"] = stock.ev_avc
        return Rebuilt(events, stock.state, refusals=modelled.refusals, stock=stock, doubts=modelled.doubts)
    modelled = reconstruct({**events, **before}, rules)
    if evidence == "modelled":
        blind = {name: frame.clear() if name in _OF_PROBES else frame for name, frame in events.items()}
        replayed = replay_state(blind, modelled.lives, modelled.versions, options.strategies)
        return Rebuilt(events, replayed, refusals=modelled.refusals, doubts=modelled.doubts)
    return Rebuilt(
        events,
        replay_exact(events, options.strategies, gaps),
        agreement(events, modelled.lives, rules, events_lost=gaps is not None)
        if evidence == "both"
        else None,
        modelled.refusals if rules == rules_of(release, events) else None,
        by_rules_of(events, modelled, rules, options.strategies) if asked is not None else None,
        doubts=modelled.doubts,
    )
