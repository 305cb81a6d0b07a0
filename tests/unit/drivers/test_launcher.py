"""The real launcher (agent/launch) with shell scripts for VMMs: what a failed start leaves, and what it says."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.drivers import launcher
from pyro_mcp.drivers.base import Launch, RunningVmm
from pyro_mcp.drivers.failed_start import STOP_SECONDS, ended_on_failure
from pyro_mcp.drivers.launcher import Command
from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import BootFailed, MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.agent import AGENT

MACHINE = "0123456789ab"
SECONDS = 60.0
NOTHING = Path("/dev/null")
# Runs the real launcher with a plan whose status pipe leads nowhere: whoever started it never hears of its VMM.
UNHEARD = """#!{python}
import json, os, sys
plan = json.loads(open(int(sys.argv[2]), "rb").read())
held = os.dup(plan["status_fd"])  # by the VMM, so that the pipe does not end
os.set_inheritable(held, True)
plan["files"].append(held)
os.dup2(os.open("/dev/null", os.O_WRONLY), plan["status_fd"])
reader, writer = os.pipe()
os.set_inheritable(reader, True)
os.write(writer, json.dumps(plan).encode())
os.close(writer)
os.execv({agent!r}, [{agent!r}, "launch", str(reader)])
"""
TELLS_AND_INTERRUPTS = "echo $$ >{pid}; kill -INT {starter}; exec sleep 1000"


@pytest.fixture
def request_(paths: Paths) -> Launch:
    files = paths.machine(MACHINE)
    private_directory(files.directory)
    return Launch(
        machine_id=MACHINE,
        vcpu_count=1,
        mem_mib=256,
        kernel=NOTHING,
        initramfs=NOTHING,
        rootfs=NOTHING,
        paths=files,
        agent=AGENT,
        owner=ProcessId.current(),
        deadline_unix_ms=0,
    )


def shell(script: str) -> Command:
    return Command(argv=("/bin/sh", "-c", script), files=())


def children() -> set[int]:
    """Every process, zombie or not, that this one started and has not waited for."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        if stat and int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.add(int(entry.name))
    return found


def agent_of(directory: Path, script: str) -> Path:
    path = directory / "agent"
    path.write_text(script)
    path.chmod(0o700)
    return path


def test_an_interrupted_start_ends_the_launcher_and_the_vmm_it_had_started(request_: Launch, tmp_path: Path) -> None:
    agent, told = agent_of(tmp_path, UNHEARD.format(python=sys.executable, agent=str(AGENT))), tmp_path / "pid"
    before = children()
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(
            shell(TELLS_AND_INTERRUPTS.format(pid=told, starter=os.getpid())),
            request_._replace(agent=agent),
            Deadline.after(SECONDS),
            identity=None,
        )
    assert ProcessId.of(int(told.read_text())) is None
    assert children() <= before


def test_a_launcher_that_is_too_slow_is_ended(request_: Launch, tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "#!/bin/sh\nexec sleep 1000\n")
    before = children()
    with pytest.raises(MachineFault, match="did not answer"):
        launcher.launch(shell("true"), request_._replace(agent=agent), Deadline.after(0.2), identity=None)
    assert children() <= before


def test_a_launcher_that_ends_without_a_word_is_not_waited_for(request_: Launch, tmp_path: Path) -> None:
    agent = agent_of(tmp_path, "#!/bin/sh\nexit 3\n")
    before = children()
    with pytest.raises(MachineFault, match="the launcher of the VMM ended"):
        launcher.launch(shell("true"), request_._replace(agent=agent), Deadline.after(SECONDS), identity=None)
    assert children() <= before


@pytest.mark.parametrize(
    "command",
    [Command(argv=("/no/such/program",), files=()), Command(argv=("relative",), files=())],
    ids=["a program that is not there", "a plan that is refused"],
)
def test_no_launcher_is_left_of_a_start_that_failed(request_: Launch, command: Command) -> None:
    before = children()
    with pytest.raises(MachineFault, match="could not be started"):
        launcher.launch(command, request_, Deadline.after(SECONDS), identity=None)
    assert children() <= before


def test_a_stopped_machine_leaves_no_zombie(request_: Launch) -> None:
    before = children()
    started = launcher.launch(shell("exec sleep 1000"), request_, Deadline.after(SECONDS), identity=None)
    started.close()
    launcher.stop(started.running, Deadline.after(SECONDS))
    assert children() <= before


def test_a_machine_whose_vmm_has_died_counts_as_stopped_and_leaves_no_zombie(request_: Launch, paths: Paths) -> None:
    store, me, before = Store(paths.database), ProcessId.current(), children()
    started = launcher.launch(shell("exec sleep 1000"), request_, Deadline.after(SECONDS), identity=None)
    started.close()
    store.insert(
        MachineRecord(
            machine_id=MACHINE,
            state="started",
            environment="debian:12",
            environment_version=None,
            vcpu_count=1,
            mem_mib=256,
            disk_mib=256,
            ttl_seconds=600,
            created_at=time.time(),
            expires_at=time.time() + 600,
            allow_host_compat=False,
            driver="qemu",
            execution_mode="guest_serial",
            isolation=NO_ISOLATION,
            owner=me,
            actor=me,
            running=started.running,
        )
    )
    os.kill(started.running.vmm.pid, signal.SIGKILL)
    assert until(lambda: not started.running.vmm.alive, Deadline.after(SECONDS))
    settings = load({})
    machines = Machines(Context(paths, settings, store, Environments(paths, settings)))
    assert machines.living(MACHINE).state == "stopped"
    assert children() <= before


def test_the_time_to_end_a_vmm_begins_when_its_start_has_failed() -> None:
    nobody, given = ProcessId(2**22 + 1, 1), []
    on_exit = ended_on_failure(lambda _, deadline: given.append(deadline), RunningVmm(nobody, nobody))
    failed = time.monotonic()
    on_exit(None, None, None)
    assert given[0].at >= failed + STOP_SECONDS


def test_a_vmm_that_survives_does_not_hide_why_its_start_failed() -> None:
    nobody = ProcessId(2**22 + 1, 1)

    def survives(_running: RunningVmm, _deadline: Deadline) -> None:
        raise MachineFault("the VMM (pid 1) did not end")

    def fails(error: BaseException) -> None:
        with contextlib.ExitStack() as on_failure:
            on_failure.push(ended_on_failure(survives, RunningVmm(nobody, nobody)))
            raise error

    with pytest.raises(BootFailed, match="no answer") as caught:
        fails(BootFailed("no answer", details=["console: tail"]))
    assert caught.value.details == ("console: tail", "the VMM (pid 1) did not end")
    with pytest.raises(KeyboardInterrupt) as interrupted:
        fails(KeyboardInterrupt())
    assert interrupted.value.__notes__ == ["the VMM (pid 1) did not end"]
