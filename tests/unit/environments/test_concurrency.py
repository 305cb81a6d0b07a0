"""Two pulls share the work, a killed one leaves nothing that counts, and prune keeps away from a running one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.unit.environments.conftest import Make, names_in

import pyro_mcp
from pyro_mcp.errors import Busy
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import IMAGE, FakeSource, Listener

NAME = "debian:12"
QUIET = Silent()
SOON = 30.0

# Pulls with a source that says "half" in the middle of its image, and goes on when its stdin ends.
PULLER = """
import resource, sys
from pyro_mcp.config import load
from pyro_mcp.environments import Environments
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import FakeSource

def wait():
    print("half", flush=True)
    sys.stdin.read()

limit = int(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
source = FakeSource(during=wait)
try:
    environments = Environments(Paths.of_user(), load({}), sources=[source])
    environments.pull("debian:12", progress=Silent(), deadline=Deadline.never())
    print("made", source.made)
except PyroError as error:
    print(type(error).__name__)
"""


@contextlib.contextmanager
def puller(*, most_bytes: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a pull."""
    env = os.environ | {"PYTHONPATH": str(Path(pyro_mcp.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", PULLER, str(most_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def partials(paths: Paths) -> list[str]:
    return [name for name in names_in(paths.installed) if name.startswith(".partial-")]


@pytest.mark.usefixtures("paths")
def test_two_processes_build_once_and_the_second_says_it_waits(environments_of: Make, listener: Listener) -> None:
    source = FakeSource()
    with puller() as other, ThreadPoolExecutor(1) as pool:
        assert line_of(other) == "half"
        mine = pool.submit(environments_of(source).pull, NAME, progress=listener, deadline=Deadline.after(SOON))
        assert listener.noted.wait(SOON)
        let_go(other)
        assert mine.result(SOON).rootfs.read_bytes() == IMAGE
        assert line_of(other) == "made 1"
    assert (source.made, listener.notes) == (0, [f"another process is installing {NAME}"])


def test_two_threads_build_once(environments_of: Make, listener: Listener) -> None:
    half, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        half.set()
        assert go_on.wait(SOON)

    source = FakeSource(during=hold)
    environments = environments_of(source)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(environments.pull, NAME, progress=QUIET, deadline=Deadline.after(SOON))
        assert half.wait(SOON)
        second = pool.submit(environments.ensure, NAME, progress=listener, deadline=Deadline.after(SOON))
        assert listener.noted.wait(SOON)
        go_on.set()
        assert first.result(SOON) == second.result(SOON)
    assert source.made == 1


def test_other_environments_do_not_wait(environments_of: Make) -> None:
    with puller() as other:
        assert line_of(other) == "half"
        environments_of(FakeSource()).pull("debian:12-base", progress=QUIET, deadline=Deadline.after(SOON))


def test_who_waits_for_too_long_is_told_that_it_is_busy(environments_of: Make) -> None:
    with puller() as other:
        assert line_of(other) == "half"
        with pytest.raises(Busy):
            environments_of(FakeSource()).pull(NAME, progress=QUIET, deadline=Deadline.after(0))


def test_a_killed_pull_leaves_nothing_installed_and_the_next_one_works(environments_of: Make, paths: Paths) -> None:
    with puller() as other:
        assert line_of(other) == "half"
        other.send_signal(signal.SIGKILL)
        other.wait(SOON)
    source = FakeSource()
    environments = environments_of(source)
    assert len(partials(paths)) == 1
    assert not any(record["installed"] for record in environments.records())
    assert environments.ensure(NAME, progress=QUIET, deadline=Deadline.after(SOON)).rootfs.read_bytes() == IMAGE
    assert source.made == 1
    assert partials(paths) == []


def test_a_pull_does_not_sweep_the_work_of_another_environment(environments_of: Make, paths: Paths) -> None:
    # "debian_12" is the beginning of "debian_12-base": the one must not take the other's directory for its own.
    seen: list[str] = []

    def pull_the_shorter_name() -> None:
        environments_of(FakeSource()).pull(NAME, progress=QUIET, deadline=Deadline.after(SOON))
        seen.extend(partials(paths))

    source = FakeSource(during=pull_the_shorter_name)
    environments_of(source).pull("debian:12-base", progress=QUIET, deadline=Deadline.after(SOON))
    assert (len(seen), source.made) == (1, 1)


def test_prune_leaves_a_running_pull_alone(environments_of: Make, paths: Paths) -> None:
    with puller() as other:
        assert line_of(other) == "half"
        assert environments_of().prune() == {"count": 0, "deleted_environment_dirs": []}
        assert len(partials(paths)) == 1
        let_go(other)
        assert line_of(other) == "made 1"
    assert environments_of().inspect(NAME)["installed"]


def test_prune_removes_what_a_killed_pull_left(environments_of: Make, paths: Paths) -> None:
    with puller() as other:
        assert line_of(other) == "half"
        other.send_signal(signal.SIGKILL)
        other.wait(SOON)
    left = partials(paths)
    assert environments_of().prune() == {"count": 1, "deleted_environment_dirs": left}
    assert partials(paths) == []


def test_a_disk_that_gets_full_is_told_and_leaves_nothing(environments_of: Make, paths: Paths) -> None:
    # A limit on the size of files fails as a full disk does, and needs no disk.
    with puller(most_bytes=len(IMAGE) * 3 // 4) as other:
        assert line_of(other) == "half"
        let_go(other)
        assert line_of(other) == "NoSpace"
    assert names_in(paths.installed) == names_in(paths.images) == []
    assert not environments_of().inspect(NAME)["installed"]
