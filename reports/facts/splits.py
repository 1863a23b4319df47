"""Who made the VMAs of the largest trees, and why neighbours are not one VMA: the split audit in short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.facts.vm_flags import flag_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

MAX_SITES: Final = 15
MAX_REFUSALS: Final = 15


@dataclass(frozen=True)
class Splits:
    """The split audit.

    Attributes:
        tree: The row of table ``tree`` with most VMAs at once.
        sites: Rows of table ``split`` that made a hundredth of the peak of their tree or more, most first,
            with ``anon_vma`` of the tree.
        refusals: Rows of table ``refusal``, most merges first, with ``anon_vma`` of the tree.
        added: VMAs that the call sites of the largest tree added up to its peak.
        taken: VMAs that others took away from it up to then.
    """

    tree: Mapping[str, Any]
    sites: Sequence[Mapping[str, Any]]
    refusals: Sequence[Mapping[str, Any]]
    added: int
    taken: int

    @property
    def sentences(self) -> list[str]:
        """Who made most VMAs of the largest tree; what is said adds up to its peak."""
        before = self.tree["before"]
        said = (
            f"{self.tree['peak']:,} VMAs at once on the largest tree, of anon_vma {self.tree['anon_vma']:#x}"
        )
        own = [row for row in self.sites if row["tree_id"] == self.tree["tree_id"]]
        parts = [f"{row['vmas_to_peak']:,} made by {who(row)}" for row in own[:1]]
        rest = self.added - sum(row["vmas_to_peak"] for row in own[:1])
        parts += [f"{rest:,} by {'others' if parts else 'small call sites'}"] if rest else []
        parts += [f"{before:,} there before the capture"] if before else []
        parts += [f"less {self.taken:,} taken away until then"] if self.taken else []
        return [f"{said}: {', '.join(parts)}." if parts else f"{said}."]

    @property
    def lines(self) -> list[str]:
        """The sentences, then why most neighbours did not merge."""
        return [*self.sentences, *(_refused(row) for row in self.refusals[:2] if row["reasons"])]


def who(row: Mapping[str, Any]) -> str:
    """A call site in words: ``mprotect PROT_READ of ksmload (pid 269)``."""
    if row["sites"] != 1:
        return f"{row['sites']:,} small call sites together"
    call = " ".join(filter(None, (row["cause_event"] or "what is not known", row["arguments"])))
    task = "" if row["pid"] is None else f" of {row['comm'] or 'a task'} (pid {row['pid']})"
    return f"{call}{task} in {row['calls']:,} call{'' if row['calls'] == 1 else 's'}"


def splits(tables: Mapping[str, pa.Table]) -> Splits | None:
    """Take the facts of the audit; None: no tree ever had two VMAs, or the tables are not there.

    Args:
        tables: Tables ``tree``, ``split`` and ``refusal``, where they are.
    """
    if "tree" not in tables or not len(tables["tree"]):
        return None
    trees = pl.DataFrame(tables["tree"])
    names = trees.select("tree_id", "anon_vma", "peak")
    sites = (
        pl.DataFrame(tables["split"])
        .join(names, on="tree_id", maintain_order="left")
        .filter(pl.col("vmas_to_peak") > 0, pl.col("vmas_to_peak") * 100 >= pl.col("peak"))
        .sort(["vmas_to_peak", "tree_id"], descending=[True, False], maintain_order=True)
    )
    refusals = (
        pl.DataFrame(tables["refusal"])
        .join(names, on="tree_id", how="left", maintain_order="left")
        .sort("merges", descending=True, maintain_order=True)
    )
    largest = trees.row(0, named=True)
    net = pl.DataFrame(tables["split"]).filter(tree_id=largest["tree_id"])["vmas_to_peak"]
    return Splits(
        tree=largest,
        sites=sites.head(MAX_SITES).to_dicts(),
        refusals=refusals.head(MAX_REFUSALS).to_dicts(),
        added=int(net.filter(net > 0).sum()),
        taken=-int(net.filter(net < 0).sum()),
    )


def _refused(row: Mapping[str, Any]) -> str:
    one = row["merges"] == 1
    if row["kind"] == "neighbours":
        what = "pair of neighbours is not one VMA" if one else "pairs of neighbours are not one VMA"
    else:
        what = "merge was refused" if one else "merges were refused"
    made = "" if row["cause_event"] is None else f", made by {row['cause_event']}"
    bits = f" ({flag_names(row['vm_flags'])})" if row["vm_flags"] else ""
    return f"{row['merges']:,} {what}{made}: {row['reasons']}{bits}"
