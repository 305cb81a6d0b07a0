"""Many runs leave the host as it was: processes, descriptors, memory, disk. ``make soak`` is the long one."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro
from pyro_mcp.testing.leaks import Baseline

from .conftest import start_pyro

pytestmark = pytest.mark.guest

RUNS = int(os.environ.get("PYRO_TEST_SOAK_RUNS", "6"))
AT_ONCE = int(os.environ.get("PYRO_TEST_SOAK_AT_ONCE", "3"))
GROWTH_MOST_MIB = 24  # of our own memory: allocators keep a little, a leak of each run would be more
STATE_MOST_MIB = 8  # SQLite's log is written back when it has 4 MiB
RUN_SECONDS = 600.0


@dataclass(frozen=True)
class Seen:
    """What can be counted from outside."""

    descriptors: int
    threads: int
    children: tuple[str, ...]
    cache: tuple[str, ...]

    @classmethod
    def now(cls, paths: Paths) -> "Seen":
        """Look."""
        return cls(
            len(list(Path("/proc/self/fd").iterdir())),
            len(list(Path("/proc/self/task").iterdir())),
            tuple(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()),
            tuple(sorted(str(path) for path in paths.cache.rglob("*") if "machines" not in path.parts)),
        )

    def beyond(self, before: "Seen") -> list[str]:
        """What is there now and was not before. That something of an earlier test has gone meanwhile is no matter."""
        return [
            *(["more descriptors"] if self.descriptors > before.descriptors else []),
            *(["more threads"] if self.threads > before.threads else []),
            *sorted(set(self.children) - set(before.children)),
            *sorted(set(self.cache) - set(before.cache)),
        ]


def own_mib() -> int:
    """The memory of this process that is resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def state_mib(paths: Paths) -> int:
    """What the state takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in paths.state.rglob("*")) >> 20


@pytest.fixture
def leaves_nothing(home: Paths) -> Iterator[Pyro]:
    """A Pyro that has run once; when the test is over all is as it was before."""
    pyro = Pyro()
    pyro.run_in_vm(environment="debian:12", command="true")
    host, before, memory = Baseline.take([home.state, home.cache]), Seen.now(home), own_mib()
    yield pyro
    assert until(lambda: not Seen.now(home).beyond(before), Deadline.after(10)), Seen.now(home).beyond(before)
    assert until(lambda: not host.leaks(), Deadline.after(10)), host.leaks()
    assert own_mib() - memory <= GROWTH_MOST_MIB
    assert Store(home.database).all() == ([], [])
    assert list(home.machines.iterdir()) == []
    assert state_mib(home) <= STATE_MOST_MIB


def test_many_runs_one_after_the_other_leave_the_host_as_it_was(leaves_nothing: Pyro) -> None:
    for number in range(RUNS):
        result = leaves_nothing.run_in_vm(environment="debian:12", command=f"echo {number}; exit {number % 256}")
        assert (result["stdout"], result["exit_code"]) == (f"{number}\n", number % 256)


@pytest.mark.usefixtures("leaves_nothing")
def test_many_runs_at_once_all_succeed_and_leave_the_host_as_it_was() -> None:
    with ExitStack() as stack:
        started = [
            stack.enter_context(start_pyro("run", "--json", "--timeout-seconds", "300", "debian:12", "--", "hostname"))
            for _ in range(AT_ONCE)
        ]
        ended = [(process, *process.communicate(timeout=RUN_SECONDS)) for process in started]
    assert [process.returncode for process, _, _ in ended] == [0] * AT_ONCE, [errors for _, _, errors in ended]
    assert len({json.loads(out)["stdout"] for _, out, _ in ended}) == AT_ONCE


def test_a_run_ends_with_its_record_written_although_nothing_waits_for_the_disk(home: Paths) -> None:
    with start_pyro("run", "debian:12", "--", "echo fine", stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=RUN_SECONDS)[0] == b"fine\n"
    assert Store(home.database).all() == ([], [])
