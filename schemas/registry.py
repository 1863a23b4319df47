"""Every table by name, in the order in which ``replay schema`` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas import (
    anon,
    events,
    events_ksm,
    families,
    fleet,
    inspection,
    ksm,
    mm,
    nodes,
    observed,
    provenance,
    splits,
    timing,
    walks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.table import Table


def _by_name(*groups: tuple[Table, ...]) -> Mapping[str, Table]:
    tables: dict[str, Table] = {}
    for group in groups:
        for table in group:
            if table.name in tables:
                raise ValueError(f"two tables are named {table.name!r}")
            tables[table.name] = table
    return tables


TABLES: Final = _by_name(
    walks.TABLES,
    timing.TABLES,
    nodes.TABLES,
    mm.TABLES,
    splits.TABLES,
    families.TABLES,
    anon.TABLES,
    ksm.TABLES,
    provenance.TABLES,
    inspection.TABLES,
    fleet.TABLES,
    events.TABLES,
    events_ksm.TABLES,
    observed.TABLES,
)
