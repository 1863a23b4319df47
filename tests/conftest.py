"""Fixtures of the model's tests; what holds for all tests.

In CI nothing may be skipped: a skipped test is a failure there. No property test fails
because the machine is busy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from replay.state.kernel import RULES
from tests.model_machine import History

if TYPE_CHECKING:
    from collections.abc import Generator

IN_CI = os.environ.get("CI") == "true"

# Of hypothesis's own profiles, which differ in whether the cases are the same ones each time.
settings.register_profile(
    "untimed",
    settings.get_profile("ci" if IN_CI else "default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


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
