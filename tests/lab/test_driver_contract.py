"""The driver contract, kept by Firecracker: jailed for root, in namespaces for a normal user."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.drivers.firecracker import FirecrackerDriver, confinement
from pyro_mcp.drivers.firecracker.confinement import HostConfinement
from pyro_mcp.engine import choice
from pyro_mcp.environments.facade import Environments
from pyro_mcp.host import kvm
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build, firecracker
from pyro_mcp.runtime.agent import AGENT
from pyro_mcp.testing.bench import Bench, Machine
from pyro_mcp.testing.driver_contract import (
    ON_A_BENCH,
    ON_A_MACHINE,
    a_vmm_that_is_killed_ends_what_waits_for_it_at_once,
    output_and_exit_code_come_back,
    what_is_in_force_is_told,
)

BOOT_SECONDS = 240.0  # a processor that is emulated twice, on a host that may be busy


def bench_in(state: Path) -> Bench:
    paths = Paths.of_user(state=state)
    state.mkdir(exist_ok=True)
    runtime = build.ensure(paths, load(), Silent(), Deadline.after(60))
    installed = Environments(paths, load()).ensure("debian:12", progress=Silent(), deadline=Deadline.after(60))
    return Bench(choice.firecracker(paths), paths, runtime, installed.rootfs, BOOT_SECONDS)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_in(tmp_path / "state")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with bench_in(tmp_path_factory.mktemp("state")).machine() as started:
        yield started


@pytest.mark.parametrize("check", ON_A_MACHINE, ids=lambda check: check.__name__)
def test_a_machine_of_firecracker_keeps_the_contract(machine: Machine, check: Callable[[Machine], None]) -> None:
    check(machine)


@pytest.mark.parametrize("check", ON_A_BENCH, ids=lambda check: check.__name__)
def test_firecracker_keeps_the_contract(bench: Bench, check: Callable[[Bench], None]) -> None:
    check(bench)


@pytest.mark.skipif(os.geteuid() == 0, reason="root gets the jailer")
@pytest.mark.parametrize(
    "check",
    [what_is_in_force_is_told, a_vmm_that_is_killed_ends_what_waits_for_it_at_once],
    ids=lambda check: check.__name__,
)
def test_without_user_namespaces_the_contract_is_kept_too(bench: Bench, check: Callable[[Bench], None]) -> None:
    found = confinement.probe(bench.paths, AGENT)
    denied = HostConfinement(found.landlock, namespaces=False, reason="as on a host that denies them")
    report = kvm.probe(bench.paths, Deadline.after(60))
    driver = FirecrackerDriver(report, lambda: denied, lambda: firecracker.find(bench.paths))
    check(Bench(driver, bench.paths, bench.runtime, bench.rootfs, bench.seconds))


def test_the_vmm_sees_nothing_of_the_host_and_has_no_capability(machine: Machine) -> None:
    output_and_exit_code_come_back(machine)
    process = Path("/proc") / str(machine.running.vmm.pid)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["NSpid"].split()[-1] == "1"
    allowed = {"dev", "firecracker", "kernel", "initramfs", "rootfs", "scratch", "run", "firecracker-seal.pid"}
    assert {path.name for path in (process / "root").iterdir()} <= allowed
    assert not (process / "root" / "etc").exists()
    devices = {path.name for path in (process / "root" / "dev").iterdir()}
    assert devices <= {"kvm", "urandom", "net", "userfaultfd"}
    assert (process / "net" / "dev").read_text().count(":") == 1  # only the loopback
    if os.geteuid() == 0:
        assert "0" not in status["Uid"].split()
        assert "pyro-machines" in (process / "cgroup").read_text()
