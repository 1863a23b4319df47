"""Another limit of sharing: hand-made histories, counted on paper."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.findings.sharing import sharing
from replay.oracle import sharing as oracle_sharing
from replay.walks.chosen import chosen
from replay.walks.exact import replay_exact
from reports import render_text
from schemas import TABLES
from tests.report_tables import sample_tables
from tests.stories import Story
from tests.test_oracle import HISTORIES, SETTINGS, STRATEGIES, history, table


def limited(story: Story, limit: int) -> dict[tuple[int, str], dict[str, object]]:
    events = {name: table(name, rows) for name, rows in story.events.items()}
    rows = sharing(replay_exact(events, STRATEGIES), events, chosen(STRATEGIES), limit)
    assert rows.filter("is_asked")["limit"].unique().to_list() == [limit]
    return {(row["limit"], row["strategy"]): row for row in rows.to_dicts()}


def test_a_lower_limit_splits_a_list() -> None:
    """Ten pages, VMAs of one page each, on one node: under 4 they are on three nodes, of 4, 4 and 2."""
    story = Story()
    task = story.task
    task.mmap(0x400, 10)
    task.write(0x400, 10)
    task.split_into_pages(0x400, 10)
    task.merge(0x400, 10)
    rows = limited(story, 4)
    four, much = rows[4, "full"], rows[256, "full"]
    assert (four["nodes"], four["pages_saved"], four["rmap_items_max"]) == (3, 3 + 3 + 1, 4)
    assert (four["iterations_total"], four["iterations_max"]) == (2 * 4 * 10, 10)
    assert (much["nodes"], much["pages_saved"], much["iterations_total"]) == (1, 9, 2 * 10 * 10)
    assert rows[4, "linear"]["iterations_total"] == 2 * 4
    assert {row["pages_saved_most"] for row in rows.values()} == {None}


def test_a_rest_of_one_page_saves_nothing() -> None:
    story = Story()
    story.task.mmap(0x400, 5)
    story.task.write(0x400, 5)
    story.task.merge(0x400, 5)
    row = limited(story, 2)[2, "full"]
    assert (row["nodes"], row["pages_saved"]) == (3, 2)


def test_forked_pages_pass_the_limit() -> None:
    """They stay with the page that was copied: two nodes of two pages, each with the child's two."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    node = task.merge(0x400, 4)
    task.fork().scanned(0x400, 4, node)
    row = limited(story, 2)[2, "full"]
    assert (row["nodes"], row["rmap_items"], row["rmap_items_max"], row["pages_saved"]) == (2, 8, 4, 6)
    compare({name: table(name, rows) for name, rows in story.events.items()}, 2)


def test_above_the_limit_in_force_there_are_only_bounds() -> None:
    """Two nodes of 256 and one of 4: under 512 they may be one of 512 and one of 4, or what they are."""
    story = Story()
    task = story.task
    task.mmap(0x400, 516)
    task.write(0x400, 516)
    for page, pages in ((0x400, 256), (0x500, 256), (0x600, 4)):
        task.merge(page, pages)
    rows = limited(story, 512)
    assert rows[256, "full"]["pages_saved_most"] is None
    row = rows[512, "full"]
    assert (row["pages_saved"], row["pages_saved_most"]) == (513, 514)
    assert (row["rmap_items_max"], row["rmap_items_most"]) == (256, 512)
    assert rows[1024, "full"]["rmap_items_most"] == 516


def test_nothing_merged() -> None:
    events = {name: table(name, rows) for name, rows in Story().events.items()}
    assert isinstance(sharing(replay_exact(events, STRATEGIES), events, chosen(STRATEGIES), 64), pl.DataFrame)


def test_the_text_keeps_to_72_columns() -> None:
    story = Story()
    story.task.mmap(0x400, 5)
    story.task.write(0x400, 5)
    story.task.merge(0x400, 5)
    rows = pl.DataFrame(list(limited(story, 2).values()))
    names = TABLES["sharing"].arrow.names
    rows = rows.with_columns(predicted_ns=pl.lit(None, pl.Int64)).select(names)
    text = render_text(sample_tables() | {"sharing": TABLES["sharing"].cast(rows.to_arrow())})
    assert "\n2 *" in text
    assert max(map(len, text.splitlines())) <= 72


@settings(SETTINGS, max_examples=40)
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), limit=st.integers(2, 5))
def test_histories(numbers: bytes, anon_pgoff: bool, limit: int) -> None:
    compare(history(numbers, anon_pgoff=anon_pgoff, linear=False, unseen=True)[1], limit)


def test_the_histories_have_lists_at_the_limit() -> None:
    """What the test above rests on."""
    saved = 0
    for seed in range(6):
        numbers = bytes(
            (seed * 7919 + place * place * 31 + place * 104729) >> 3 & 0xFF for place in range(900)
        )
        row = compare(history(numbers, anon_pgoff=False, linear=False)[1], 2)["full"]
        saved += row["pages_saved"] or 0
    assert saved > 10


def compare(events: dict[str, pl.DataFrame], limit: int) -> dict[str, dict[str, int | None]]:
    """Hold the columns to the twin; its rows."""
    slow = oracle_sharing.sharing(
        {name: frame.to_dicts() for name, frame in events.items()}, STRATEGIES, limit
    )
    fast = sharing(replay_exact(events, STRATEGIES), events, chosen(STRATEGIES), limit).filter("is_asked")
    columns = next(iter(slow.values()), {}).keys()
    assert {row["strategy"]: {name: row[name] for name in columns} for row in fast.to_dicts()} == slow
    return slow
