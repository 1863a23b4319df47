"""The same history as another kernel would have kept it: would an upgrade help here?

Trees are rebuilt from the capture's system calls, faults and forks by the other kernel's rules (``model``);
the capture's own rmap_items, whose address and mm the probes tell, are put on them, and the capture's walks
are replayed over that. So merge rules, the anonymous page offset of private file mappings, the order of
cloning and of PR_SET_MEMORY_MERGE's flag are the other kernel's; all else is what this machine did.

Not known from a capture, and so as it was here: which pages ksmd would have merged, and when; which walks
there would have been (a failed migration is tried again); what addresses the kernel would have chosen; which
pages were mapped at a walk. What was there before the capture began has no place in the model.

By the rules of the traced kernel itself, this gives the counts of the exact replay, save in loops that ran
while an operation on their tree was half done: those have bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from replay.ksm.bounds import bounded
from replay.ksm.modelled import on_model
from replay.ksm.windows import Doubt, in_windows, windows
from replay.summary import summarise
from replay.walks.exact import Exact, replay_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.model.rebuild import Modelled
    from replay.state.kernel import KernelRules


@dataclass(frozen=True)
class OtherKernel:
    """The walks of a capture over trees that were kept by other rules.

    Attributes:
        rules: Which kernel's rules.
        state: State and walks.
        unplaced: rmap_items whose VMA the model does not have: what it was made of is not in the capture.
        doubts: ``Modelled.doubts``.
    """

    rules: KernelRules
    state: Exact
    unplaced: int
    doubts: Mapping[str, int]


def by_rules_of(
    events: Mapping[str, pl.DataFrame], model: Modelled, rules: KernelRules, strategies: Sequence[str]
) -> OtherKernel:
    """Replay the walks of a capture with probes over modelled trees.

    Args:
        events: The ``ev_*`` tables.
        model: State rebuilt by ``rules``.
        rules: Which kernel's rules.
        strategies: Names of the strategies.
    """
    lives = in_windows(model.lives, windows(events))
    moved = on_model(events, model, lives)
    state = replay_state(moved, lives, model.versions, strategies)
    walked = lives.join(
        moved["ev_append"].select("anon_vma").unique(), on="anon_vma", how="semi", maintain_order="left"
    )
    return OtherKernel(
        rules,
        bounded(state, Doubt(walked)),
        moved["ev_append"]["anon_vma"].null_count(),
        model.doubts,
    )


def other_kernel(other: OtherKernel) -> pl.DataFrame:
    """Table ``other_kernel``: one row a strategy."""
    rows = summarise(other.state, other.state.loop, other.state.walk)
    return rows.with_columns(evidence=pl.lit("predicted"), kernel_rules=pl.lit(other.rules))
