"""Escaping by itself: each function against the reader that it protects."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.escape import ascii_only, markdown, plotly_label, script_json


@given(st.text())
def test_ascii_is_one_printable_line(text: str) -> None:
    assert ascii_only(text).isascii()
    assert ascii_only(text) == "" or ascii_only(text).isprintable()


@given(st.text())
def test_json_in_a_script_says_the_same_without_markup(text: str) -> None:
    written = script_json({"name": text})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"name": text}


@pytest.mark.parametrize("text", ["</script>", "<!--", "<b>&lt;</b>"])
def test_no_tag_and_no_entity_passes_into_a_label(text: str) -> None:
    assert "<" not in plotly_label(text)
    assert plotly_label("&lt;") == "&amp;lt;"


def test_kernel_names_stay_readable_in_markdown() -> None:
    assert markdown("try_to_migrate_one") == "try_to_migrate_one"
    assert markdown("a|b\n") == r"a\|b\\n"
