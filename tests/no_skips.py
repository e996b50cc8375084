"""A pytest plugin: the run fails if a test was skipped that is not marked `gpu`.

A machine that lacks what a test needs must not look green: `pytest -p tests.no_skips`.
"""

from collections.abc import Iterable

import pytest


class NoSkips:
    """Collects what was skipped and turns a passing run into a failing one."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        expected_failure = hasattr(report, "wasxfail")
        if report.skipped and not expected_failure and "gpu" not in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.lines():
            terminalreporter.write_line(line, red=True)

    def lines(self) -> Iterable[str]:
        """What to tell the reader; nothing where nothing was skipped."""
        if self.skipped:
            yield "these tests need no GPU and must not be skipped:"
            yield from sorted(set(self.skipped))


def pytest_configure(config: pytest.Config) -> None:
    # The workers of pytest-xdist report to the process that started them.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(), "no_skips")
