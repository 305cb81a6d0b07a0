"""What every test gets: directories of its own, and at the very end the proof that nothing was left behind."""

import os
from collections.abc import Iterator
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


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Empty state and cache directories, also for pyro processes that the test starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYRO_ENVIRONMENT_CACHE_DIR", raising=False)
    return Paths.of_user()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No process that holds our files, no mount and no network device survives the session."""
    before = Baseline.take([tmp_path_factory.getbasetemp(), TEST_CACHE])
    yield
    assert until(lambda: not before.leaks(), Deadline.after(SETTLE_SECONDS)), before.leaks()
