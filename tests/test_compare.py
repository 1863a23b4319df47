"""Two results side by side: what differs comes first, what is not known is never called a difference."""

from __future__ import annotations

import json

from report_tables import SUMMARY, sample_tables, summary_row, table

from replay.results.compare import compare
from reports import comparison


def patched() -> dict[str, object]:
    """A kernel that runs linear: the same, but what it did is what linear said."""
    rows = [summary_row(name, *values) for name, values in SUMMARY.items() if name != "observed"]
    rows.insert(0, summary_row("observed", 0.034, 1, 0, 0, 64, None, None))
    tables = sample_tables(capture={"kernel_release": "7.3.4", "native_strategy": "linear", "path": "b.dat"})
    return tables | {"summary": table("summary", rows)}


def test_what_differs_comes_first() -> None:
    document = compare(sample_tables(), patched())
    differing = [row for row in document["rows"] if row["differs"]]
    assert document["rows"][: len(differing)] == differing
    assert {row["strategy"] for row in differing} == {"observed"}
    iterations = next(row for row in differing if row["measure"] == "Nr_iteration_total")
    assert (iterations["a"], iterations["b"]) == (2000, 1)


def test_the_prediction_stands_beside_what_the_patched_kernel_did() -> None:
    document = compare(sample_tables(), patched())
    told = {(row["from"], row["strategy"], row["measure"]): row for row in document["predictions"]}
    row = told["A", "linear", "Nr_iteration_total"]
    assert (row["predicted"], row["observed"]) == (1, 1)
    row = told["A", "linear", "Time_ms"]
    assert (row["predicted"], row["observed"]) == (0.012, 0.034)
    # and the other way round: what B says of full, beside what A did
    row = told["B", "full", "Nr_iteration_total"]
    assert (row["predicted"], row["observed"]) == (2000, 2000)


def test_a_stock_kernel_runs_what_its_tree_key_says() -> None:
    """Where every point lookup is the same, no count tells which of them a 7.3 kernel runs."""
    tables = patched()
    capture = tables["capture"].to_pylist()[0] | {"native_strategy": None, "page_offset_rule": "anon_pgoff"}
    document = compare(sample_tables(), tables | {"capture": table("capture", [capture])})
    assert document["ran"] == ["full", "linear"]
    text = comparison.render_text(document)
    assert "by its tree key runs\n   linear" in text or "by its tree key runs linear" in text
    at = text.index("Predicted from A under the strategy that B ran, observed in B:")
    assert text[at:].splitlines()[1:4] == [
        "strategy  measure                 from A   in B",
        "linear    Time_ms                  0.012  0.034",
        "linear    Nr_iteration_total           1      1",
    ]


def test_a_result_differs_from_itself_in_nothing() -> None:
    document = compare(sample_tables(), sample_tables())
    assert not [row for row in document["rows"] if row["differs"] is not False]
    assert "What differs" not in comparison.render_text(document)


def test_misses_are_compared_as_shares_of_the_mappings() -> None:
    rows = [summary_row("vm_pgoff", None, 1, 1, 0, 64, 340, 300)]
    document = compare(sample_tables(), sample_tables() | {"summary": table("summary", rows)})
    row = next(
        row for row in document["rows"] if (row["strategy"], row["measure"]) == ("vm_pgoff", "missed %")
    )
    assert (row["a"], row["b"], row["differs"]) == (46.9, 46.9, False)


def test_what_one_side_does_not_know_is_no_difference() -> None:
    rows = [summary_row("full", None, None, 0, 0, None, None, None)]
    document = compare(sample_tables(), sample_tables() | {"summary": table("summary", rows)})
    full = {row["measure"]: row for row in document["rows"] if row["strategy"] == "full"}
    assert full["Nr_iteration_total"]["differs"] is None
    text = comparison.render_text(document)
    assert text.index("What differs") < text.index("What only one side knows")


def test_text_is_fit_for_mail_and_markdown_is_escaped() -> None:
    hostile = "</script>|\x1b[2J" + "x" * 300
    document = compare(
        sample_tables(custom=(hostile,), capture={"path": hostile}), sample_tables(capture={"path": hostile})
    )
    text = comparison.render_text(document)
    assert max(map(len, text.splitlines())) <= 72
    assert text.isascii()
    markdown = comparison.render_markdown(document)
    assert "<" not in markdown
    assert "\x1b" not in text + markdown
    assert json.loads(comparison.render_json(document)) == document
