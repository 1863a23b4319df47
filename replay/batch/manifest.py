"""The manifest of a batch: what became of each input, as a table and as text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from schemas import TABLES
from schemas.errors import printable
from schemas.fleet import FAILED, STATUS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from replay.batch.job import Outcome
    from replay.batch.store import Store


def table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Table ``captures``."""
    schema = TABLES["captures"].arrow
    return TABLES["captures"].check(
        pa.Table.from_pylist([outcome.row() for outcome in outcomes], schema=schema)
    )


def write(outcomes: Sequence[Outcome], store: Store, scratch: Path, *, suffix: str = "") -> str:
    """Write ``captures.parquet`` and ``captures.txt``; each is whole or as it was.

    Args:
        outcomes: In the order of the inputs.
        store: Folder of the batch.
        scratch: Folder for the unfinished files.
        suffix: What the names have behind ``captures``, for a share of the batch.

    Returns:
        Name of the table's file.

    Raises:
        OutputError: They cannot be written.
    """
    parquet = scratch / f"captures{suffix}.parquet"
    pq.write_table(table(outcomes), parquet, compression="zstd")
    plain = scratch / f"captures{suffix}.txt"
    plain.write_text(text(outcomes), encoding="utf-8")
    for path in (plain, parquet):
        store.publish(path, path.name)
    return parquet.name


def text(outcomes: Sequence[Outcome]) -> str:
    """Counts by status, then a line for each capture: those that failed first, with what is wrong."""
    counts = Counter(outcome.status for outcome in outcomes)
    lines = [f"{len(outcomes):,} captures"]
    lines += [f"  {counts[status]:>7,} {status:<8} {STATUS[status]}" for status in STATUS if counts[status]]
    ordered = sorted(outcomes, key=lambda outcome: not outcome.failed)
    for outcome in ordered:
        took = "-" if outcome.seconds is None else f"{outcome.seconds:.2f} s"
        peak = "-" if outcome.peak_bytes is None else f"{outcome.peak_bytes / 1e6:.0f} MB"
        head = f"{outcome.status:<8} {(outcome.result or '-'):<12} {took:>10} {peak:>9}"
        lines.append(f"{head}  {printable(outcome.path)}")
        if outcome.status in FAILED or outcome.what is not None:
            lines += [
                f"         {printable(part)}" for part in (outcome.what, outcome.where, outcome.hint) if part
            ]
    return "\n".join(lines) + "\n"
