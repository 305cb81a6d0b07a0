"""Real guests under QEMU: caches shared by all tests (and by later sessions), state of its own for every test."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.execution import execute
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.model import CommandSpec
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "test-cache"
RUN_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A pyro command that ended."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Its stdout as text."""
        return self.stdout.decode(errors="replace")

    @property
    def errors(self) -> str:
        """Its stderr as text."""
        return self.stderr.decode(errors="replace")


Cli = Callable[..., Ended]


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """A cache with debian:12 and the kernel installed; filled by the first test of a fresh clone."""
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    paths = Paths.of_user(state=CACHE / "state")
    pyro = Pyro(base_dir=paths.state)
    pyro.pull_environment("debian:12")
    return CACHE


@pytest.fixture
def home(shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """State of this test's own, the shared cache, and the proof that no machine is left."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared_cache))
    monkeypatch.delenv("PYRO_ENVIRONMENT_CACHE_DIR", raising=False)
    paths = Paths.of_user()
    yield paths
    assert until(lambda: not leftovers(paths), Deadline.after(5)), leftovers(paths)


def leftovers(paths: Paths) -> list[str]:
    """Directories of machines that are still there."""
    return sorted(path.name for path in paths.machines.glob("*"))


def start_pyro(*words: str, **options: object) -> subprocess.Popen[bytes]:
    """A pyro command as a process of its own."""
    defaults: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(pyro_argv(words), **(defaults | options))  # type: ignore[call-overload,no-any-return]


def pyro_argv(words: Sequence[str]) -> list[str]:
    """The command line of the pyro under test."""
    return [sys.executable, "-m", "pyro_mcp", *words]


@pytest.fixture
def cli(home: Paths) -> Cli:
    """Run a pyro command to its end."""

    def run(*words: str, stdin: bytes = b"", timeout: float = RUN_SECONDS) -> Ended:
        done = subprocess.run(pyro_argv(words), input=stdin, capture_output=True, timeout=timeout, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def said_in(vm_id: str, command: str) -> str:
    """The output of a command in a started machine, which goes on."""
    machines = Pyro()._machines
    sinks = CaptureSinks()
    with machines.channels(machines.living(vm_id)).open(Deadline.after(30)) as session:
        assert execute(session, CommandSpec(command, 30), new_job(), sinks=sinks).exit_code == 0
    return sinks.stdout.text()
