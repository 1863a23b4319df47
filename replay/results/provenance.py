"""Where results come from: the metadata that every table carries into its Parquet file.

Keys (UTF-8 text; a key whose value is not known is left out, never empty):

=======================  =====================================================================
``replay.version``       version of replay
``replay.command``       the command line, quoted for a shell; absent when called as a library
``replay.input``         the capture as it was named
``replay.input.sha256``  SHA-256 of the capture
``replay.kernel``        release of the kernel that was traced
``replay.clock``         trace clock of all ``_ts_ns`` columns
``replay.lost_events``   events lost; ``unknown``: some were, nobody knows how many
``replay.libraries``     versions of Python and of the libraries that compute and store
=======================  =====================================================================

``replay.schema`` (name and version of the table) is put there by ``schemas``.
"""

from __future__ import annotations

import platform
import shlex
from importlib.metadata import version
from typing import TYPE_CHECKING

from replay import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

LIBRARIES = ("numpy", "polars", "pyarrow")


def metadata(capture: pa.Table, command: Sequence[str] | None) -> dict[bytes, bytes]:
    """The metadata of all tables of one analysis.

    Args:
        capture: Table ``capture``: one row.
        command: The command line as words; None: there is none.
    """
    (row,) = capture.to_pylist()
    lost = row["events_lost"]
    values = {
        "replay.version": __version__,
        "replay.command": None if command is None else shlex.join(command),
        "replay.input": row["path"],
        "replay.input.sha256": row["sha256"],
        "replay.kernel": row["kernel_release"],
        "replay.clock": row["clock"],
        "replay.lost_events": "unknown" if lost is None else str(lost),
        "replay.libraries": libraries(),
    }
    return {key.encode(): encode(value) for key, value in values.items() if value is not None}


def encode(value: str) -> bytes:
    """UTF-8; bytes of a file name that are not UTF-8 (surrogates) become escapes."""
    return value.encode("utf-8", "backslashreplace")


def stamp(tables: Mapping[str, pa.Table], command: Sequence[str] | None) -> dict[str, pa.Table]:
    """The same tables with the metadata added to what they have. No data are copied."""
    added = metadata(tables["capture"], command)
    return {
        name: table.replace_schema_metadata({**(table.schema.metadata or {}), **added})
        for name, table in tables.items()
    }


def libraries() -> str:
    """Versions of what computes, such as ``python 3.11.7, numpy 2.4.6, polars 2.1.0, pyarrow 26.0.1``."""
    return ", ".join(
        [f"python {platform.python_version()}"] + [f"{name} {version(name)}" for name in LIBRARIES]
    )
