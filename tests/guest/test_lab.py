"""The lab's machine. What runs in it is in tests/lab; ``make lab`` runs that."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.errors import OperationFailed
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.testing.lab.machine import LabMachine
from pyro_mcp.testing.lab.session import opened, prepare

ROOT = Path(__file__).parents[2]
LIFE_SECONDS = 600.0
PATIENCE_SECONDS = 15.0
END_SECONDS = 60.0  # less than it waits for results of a lab that answers

pytestmark = pytest.mark.guest


@pytest.fixture
def lab(home: Paths, tmp_path: Path) -> Iterator[LabMachine]:
    """A lab without the checkout; afterwards the proof that it left its logs, and nothing else."""
    parts = prepare(home, load(), ROOT, Silent())
    machines = home.lab / "machines"
    before = set(machines.glob("*"))  # a developer may keep one
    with opened(home, parts, seconds=LIFE_SECONDS, keep_logs=tmp_path) as machine:
        assert len(set(machines.glob("*")) - before) == 1
        yield machine
    assert (tmp_path / "console.log").exists()
    assert set(machines.glob("*")) <= before


def test_kvm_opens_for_root_and_for_a_normal_user(lab: LabMachine) -> None:
    for user, uid in (("", "0"), ("dev", "1000")):
        said = lab.output("id -u; exec 3<>/dev/kvm && echo open; ls /lab", user=user)
        assert said.split() == [uid, "open", "cache", "mtimes.json", "site"]


def children(pid: int) -> list[int]:
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def stand_still(pid: int) -> int:
    """Stop the VMM of the lab that the process *pid* has started; its pid."""
    below = [one for launcher in children(pid) for one in children(launcher)]
    (vmm,) = [one for one in below if b"qemu-system" in Path(f"/proc/{one}/cmdline").read_bytes()]
    os.kill(vmm, signal.SIGSTOP)
    return vmm


def test_a_lab_that_stands_still_is_ended_and_that_is_said(home: Paths) -> None:
    parts, stopped = prepare(home, load(), ROOT, Silent()), []

    def run() -> None:
        with opened(home, parts, seconds=LIFE_SECONDS, patience=PATIENCE_SECONDS) as machine:
            stopped.append(stand_still(os.getpid()))
            machine.run("sleep 1000", seconds=LIFE_SECONDS, sinks=CaptureSinks())

    with pytest.raises(OperationFailed, match="stands still"):
        run()
    assert not Path(f"/proc/{stopped[0]}").exists()


def test_a_run_that_is_told_to_end_takes_down_even_a_lab_that_stands_still(shared_cache: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    argv = [sys.executable, "scripts/lab.py", "--cache", str(shared_cache), "--results", str(results), "--user", "root"]
    with subprocess.Popen([*argv, "--command", "echo there; sleep 1000"], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"there\n"
        vmm = stand_still(run.pid)
        run.send_signal(signal.SIGTERM)
        assert run.wait(END_SECONDS) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{vmm}").exists()
