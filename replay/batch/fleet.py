"""The results of a batch together: Parquet datasets by kernel release and strategy, read lazily.

``tables/NAME/kernel_release=.../strategy=.../*.parquet`` in the folder of the batch, NAME one of
``fleet_rows.NAMES``. Nothing here holds all rows of all captures at once: polars streams them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow.parquet as pq

from replay.batch.fleet_rows import NAMES
from schemas import TABLES
from schemas.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from replay.batch.job import Outcome
    from replay.batch.store import Store

FOLDER: Final = "tables"
KEYS: Final = ("kernel_release", "strategy")
MANIFEST: Final = "captures.parquet"


def collect(outcomes: Sequence[Outcome], store: Store, scratch: Path) -> None:
    """Put the fleet tables of all analysed captures together in the folder of the batch.

    Args:
        outcomes: What became of the captures; those with the bytes of another one do not count.
        store: Folder of the batch.
        scratch: Folder for unfinished work.

    Raises:
        OutputError: The tables cannot be read or written.
    """
    analysed = [one for one in outcomes if one.result is not None and one.status != "skipped"]
    named = pl.LazyFrame(
        {"sha256": [one.sha256 for one in analysed], "path": [one.path for one in analysed]},
        schema={"sha256": pl.String, "path": pl.String},
    )
    fresh = scratch / FOLDER
    try:
        for name in NAMES:
            (fresh / name).mkdir(parents=True)
            if analysed:
                files = store.local([f"{one.result}/{FOLDER}/{name}.parquet" for one in analysed], scratch)
                columns = TABLES[name].arrow.names
                (
                    pl.scan_parquet(files, glob=False)
                    .drop("path")
                    .join(named, on="sha256", how="left", maintain_order="left")
                    .select(columns)
                    .sink_parquet(
                        pl.PartitionBy(fresh / name, key=list(KEYS), include_key=True),
                        mkdir=True,
                        engine="streaming",
                    )
                )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputError(
            f"the results cannot be put together: {str(error).splitlines()[0]}",
            path=fresh,
            hint="--force makes them anew; see that the disk is not full",
        ) from error
    store.publish(fresh, FOLDER)


def open_fleet(store: Store, scratch: Path, shown: str) -> dict[str, pl.LazyFrame]:
    """The datasets of a batch and its manifest ``captures``, by name; nothing is read so far.

    Args:
        store: Folder of the batch.
        scratch: Folder for local copies, where the store is remote.
        shown: Name of the folder, for the error.

    Raises:
        UsageError: It is not the folder of a batch that ran to its end.
    """
    if store.read(MANIFEST) is None:
        raise UsageError(
            "this is not the folder of a batch",
            where=f"{shown}: no {MANIFEST}",
            hint="name the folder that was given to: replay batch ... -o DIR",
        )
    (manifest,) = store.local([MANIFEST], scratch)
    frames = {"captures": pl.LazyFrame(pl.from_arrow(TABLES["captures"].check(pq.read_table(manifest))))}
    for name in NAMES:
        files = [file for file in store.below(f"{FOLDER}/{name}") if file.endswith(".parquet")]
        if files:
            frames[name] = pl.scan_parquet(
                store.local(files, scratch),
                glob=False,
                hive_partitioning=True,
                hive_schema=dict.fromkeys(KEYS, pl.String),
            )
        else:
            frames[name] = pl.LazyFrame(pl.from_arrow(TABLES[name].empty()))
    return frames


def query(frames: Mapping[str, pl.LazyFrame], sql: str) -> pl.DataFrame:
    """Ask the datasets in SQL, as polars has it; every frame is a table by its name.

    Raises:
        UsageError: The query is wrong.
    """
    try:
        with pl.SQLContext(frames) as context:
            return context.execute(sql, eager=False).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise UsageError(
            f"the query cannot be answered: {str(error).splitlines()[0]}",
            where=f"--query {sql!r}",
            hint=f"tables: {', '.join(frames)}; `replay schema fleet` lists the columns of one",
        ) from error
