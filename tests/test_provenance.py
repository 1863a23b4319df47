"""Every table carries where it comes from; what is not known is left out."""

from __future__ import annotations

import shlex

import pyarrow as pa
import pytest

from replay import __version__
from replay.results import provenance
from schemas import TABLES


def capture(**changed: object) -> pa.Table:
    """Table ``capture`` of a capture that says nothing about its origin."""
    row = {name: None for name in TABLES["capture"].arrow.names}
    row |= {
        "path": "a.dat",
        "format": "trace.dat v6",
        "size_bytes": 9,
        "sha256": "ab" * 32,
        "cpus": 1,
        "events": 0,
        "events_decoded": 0,
        "truncated": False,
        "replay_version": __version__,
    }
    return pa.Table.from_pylist([{**row, **changed}], schema=TABLES["capture"].arrow)


def test_what_is_not_known_is_left_out() -> None:
    keys = set(provenance.metadata(capture(), None))
    assert keys == {
        b"replay.version",
        b"replay.input",
        b"replay.input.sha256",
        b"replay.lost_events",
        b"replay.libraries",
    }


@pytest.mark.parametrize(("lost", "said"), [(None, b"unknown"), (0, b"0"), (396_535, b"396535")])
def test_lost_events_of_unknown_number_are_not_0(lost: int | None, said: bytes) -> None:
    assert provenance.metadata(capture(events_lost=lost), None)[b"replay.lost_events"] == said


def test_the_command_can_be_run_again() -> None:
    words = ["replay", "analyze", "my trace.dat", "-o", "it's"]
    assert shlex.split(provenance.metadata(capture(), words)[b"replay.command"].decode()) == words


def test_a_file_name_that_is_not_utf8_is_escaped() -> None:
    assert provenance.metadata(capture(), ["replay", "a\udcff"])[b"replay.command"] == rb"replay 'a\udcff'"


def test_stamp_keeps_the_schema_and_the_rows() -> None:
    tables = {"capture": capture(clock="mono"), "walk": TABLES["walk"].empty()}
    stamped = provenance.stamp(tables, None)
    assert stamped["walk"].schema.metadata[b"replay.schema"] == b"walk/1.2"
    assert stamped["walk"].schema.metadata[b"replay.clock"] == b"mono"
    assert stamped["capture"].to_pylist() == tables["capture"].to_pylist()
