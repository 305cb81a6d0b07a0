"""What every test gets: directories of its own, and at the very end the proof that nothing was left behind."""

import os
from pathlib import Path

import pytest

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.testing.leaks import Baseline

# The same environments on every host, whether it reaches a registry or not.
os.environ["PYRO_ENVIRONMENT_SOURCES"] = "bootstrap"
SETTLE_SECONDS = 5.0
# Kernels and environments that tests share, also from session to session.
TEST_CACHE = Path(__file__).parents[1] / "build" / "test-cache"
BEFORE = pytest.StashKey[Baseline]()
LEFT = pytest.StashKey[list[str]]()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Empty state and cache directories, also for pyro processes that the test starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYRO_ENVIRONMENT_CACHE_DIR", raising=False)
    return Paths.of_user()


@pytest.fixture
def no_vmm(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A host with a few programs and no VMM: what is allowed to runs on the host itself, everything else is refused.

    Its home is empty: login shells read what is there, and that may take them any time.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "head", "id", "sleep", "yes"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("pyro_mcp.host.proc.PATH", str(programs))
    return paths


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look around before the first test: of workers side by side (``pytest -n 2``), who started them does."""
    if not hasattr(session.config, "workerinput"):
        base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        session.config.stash[BEFORE] = Baseline.take([base, TEST_CACHE])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """No process that holds our files, no mount and no network device survives the session; else it has failed."""
    before = session.config.stash.get(BEFORE, None)
    if before is not None and not until(lambda: not before.leaks(), Deadline.after(SETTLE_SECONDS)):
        session.config.stash[LEFT] = before.leaks()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left behind."""
    for line in config.stash.get(LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND {line}", red=True)
