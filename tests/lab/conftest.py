"""Tests in the lab: real KVM, real Firecracker. Elsewhere they are skipped, and counted: ``make lab`` runs them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.testing.lab import in_lab
from pyro_mcp.testing.leaks import Everything

HERE = Path(__file__).parent
SETTLE_SECONDS = 20.0  # what ends behind a caller's back (the processes of a cell) takes a while on this processor


class _AtOnce:
    """A failure is written when it happens: who watches a lab need not wait for the end of the others."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"{report.longreprtext}\n{report.nodeid} failed in its {report.when}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if in_lab() and reporter is not None:
        config.pluginmanager.register(_AtOnce(reporter))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    elsewhere = pytest.mark.skip(reason="runs in the lab: `make lab`")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lab)
            if not in_lab():
                item.add_marker(elsewhere)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Nobody else works in the lab: each process, mount, device and cgroup that was not there before is the test's."""
    before = Everything.now()
    yield
    until(lambda: not Everything.now().beyond(before), Deadline.after(SETTLE_SECONDS))
    left = Everything.now().beyond(before)
    assert not left, left
