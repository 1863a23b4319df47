"""Names of vm_flags: those that the model computes with have the same bits."""

from __future__ import annotations

import pytest

from replay.state import kernel as model_rules
from reports.facts.vm_flags import NAMES, flag_names

KNOWN = [bit for bit, name in NAMES.items() if hasattr(model_rules, f"VM_{name}")]


@pytest.mark.parametrize("bit", KNOWN)
def test_a_name_stands_for_the_bit_of_the_model(bit: int) -> None:
    assert getattr(model_rules, f"VM_{NAMES[bit]}") == 1 << bit


def test_what_has_no_name_is_shown_as_a_number() -> None:
    assert len(KNOWN) > 15
    assert flag_names(0x80000002) == "WRITE|MERGEABLE"
    assert flag_names(1 << 40 | 1) == "READ|0x10000000000"
    assert (flag_names(0), flag_names(None)) == ("", "")
