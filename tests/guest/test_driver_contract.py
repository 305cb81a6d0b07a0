"""The driver contract, kept by QEMU."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.engine import choice
from pyro_mcp.environments.facade import Environments
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build
from pyro_mcp.testing.bench import Bench, Machine
from pyro_mcp.testing.driver_contract import ON_A_BENCH, ON_A_MACHINE

pytestmark = pytest.mark.guest

BOOT_SECONDS = 60.0


def bench_in(state: Path) -> Bench:
    paths = Paths.of_user(state=state)
    state.mkdir(exist_ok=True)
    deadline = Deadline.after(600)
    runtime = build.ensure(paths, load(), Silent(), deadline)
    installed = Environments(paths, load()).ensure("debian:12", progress=Silent(), deadline=deadline)
    return Bench(choice.qemu(paths)[0], paths, runtime, installed.rootfs, BOOT_SECONDS)


@pytest.fixture
def bench(home: Paths) -> Bench:
    return bench_in(home.state)


@pytest.fixture(scope="module")
def machine(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    assert shared_cache.exists()
    with bench_in(tmp_path_factory.mktemp("state")).machine() as started:
        yield started


@pytest.mark.parametrize("check", ON_A_MACHINE, ids=lambda check: check.__name__)
def test_a_machine_of_qemu_keeps_the_contract(machine: Machine, check: Callable[[Machine], None]) -> None:
    check(machine)


@pytest.mark.parametrize("check", ON_A_BENCH, ids=lambda check: check.__name__)
def test_qemu_keeps_the_contract(bench: Bench, check: Callable[[Bench], None]) -> None:
    check(bench)
