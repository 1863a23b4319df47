"""Fixtures of the model's tests. In CI nothing may be skipped: a skipped test is a failure there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from replay.state.kernel import RULES
from tests.model_machine import History

if TYPE_CHECKING:
    from collections.abc import Generator

IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest) -> str:
    """Each of the kernels whose rules the model has."""
    return str(request.param)


@pytest.fixture
def history() -> History:
    """Of one task, in which nothing has happened."""
    return History()


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report
