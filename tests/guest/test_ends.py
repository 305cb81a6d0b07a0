"""However a run ends, nothing of it stays: signals, kill -9 at random moments, a VMM that dies."""

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.drivers.qemu.driver import PROGRAM
from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.proc import find
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

from .conftest import leftovers, start_pyro

pytestmark = pytest.mark.guest

SETTLE = 10.0
ROUNDS = 20
LONG_COMMAND = "echo ready; exec sleep 100"  # one process: a shell that is just forking may miss a SIGINT


@contextlib.contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose command has begun."""
    process = start_pyro("run", *words, "debian:12", "--", LONG_COMMAND)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def vmm_processes(paths: Paths) -> list[ProcessId]:
    records, _ = Store(paths.database).all()
    return [pid for record in records if record.running for pid in (record.running.launcher, record.running.vmm)]


def is_clean(paths: Paths, processes: list[ProcessId]) -> bool:
    return leftovers(paths) == [] and not any(process.alive for process in processes)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
)
def test_a_signal_ends_the_run_and_all_that_belongs_to_it(home: Paths, number: signal.Signals, code: int) -> None:
    with running() as process:
        machines = vmm_processes(home)
        assert len(machines) == 2
        process.send_signal(number)
        assert process.wait(30) == code
    assert until(lambda: is_clean(home, machines), Deadline.after(SETTLE))
    assert Store(home.database).all() == ([], [])


def test_the_first_interrupt_is_for_the_command_which_may_end_in_its_own_way(home: Paths) -> None:
    command = "trap 'echo bye; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    process = start_pyro("run", "debian:12", "--", command)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"bye\n", 3)
    assert leftovers(home) == []


def test_kill_minus_nine_of_the_caller_takes_the_machine_and_its_directory(home: Paths) -> None:
    with running() as process:
        machines = vmm_processes(home)
        process.kill()
        process.wait()
        assert until(lambda: is_clean(home, machines), Deadline.after(SETTLE))
    Pyro().reap_expired()  # any use of machines sweeps: the record of the dead run goes
    assert Store(home.database).all() == ([], [])


def test_kill_minus_nine_of_the_launcher_takes_the_vmm_and_ends_the_run_with_a_cause(home: Paths) -> None:
    with running() as process:
        launcher, vmm = vmm_processes(home)
        os.kill(launcher.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 125
        assert b"virtual machine ended" in errors
        assert not vmm.alive
    assert leftovers(home) == []


def test_a_vmm_that_is_killed_ends_the_run_at_once_with_a_cause(home: Paths) -> None:
    with running() as process:
        _, vmm = vmm_processes(home)
        began = time.monotonic()
        os.kill(vmm.pid, signal.SIGKILL)
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 10  # the command would have run for 100 seconds
        assert process.returncode == 125
        assert b"virtual machine ended" in errors
        assert b"Traceback" not in errors
    assert leftovers(home) == []


def test_a_closed_output_pipe_ends_the_run_quietly(home: Paths) -> None:
    process = start_pyro("run", "debian:12", "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 141
    assert b"Traceback" not in errors
    assert leftovers(home) == []


def test_twenty_rounds_of_kill_minus_nine_at_random_moments_leave_nothing(home: Paths) -> None:
    moments = random.Random(7)
    for _ in range(ROUNDS):
        process = start_pyro("run", "debian:12", "--", LONG_COMMAND)
        seen: list[ProcessId] = []
        end = Deadline.after(moments.uniform(0.05, 4.0))

        def watch(found: list[ProcessId] = seen) -> bool:
            if home.database.exists():
                found += [pid for pid in vmm_processes(home) if pid not in found]
            return False

        until(watch, end)
        process.kill()
        process.communicate()
        assert until(lambda found=seen: not any(pid.alive for pid in found), Deadline.after(SETTLE))  # type: ignore[misc]
    Pyro().reap_expired()
    assert leftovers(home) == []
    assert Store(home.database).all() == ([], [])
    assert locks_held_below(home.state) == []


def locks_held_below(directory: Path) -> list[str]:
    """Files below *directory* that another process has locked (proc_locks(5)). This one keeps its records open."""
    inodes = {path.stat().st_ino: str(path) for path in directory.rglob("*") if path.is_file()}
    locks = [line.replace("-> ", "").split() for line in Path("/proc/locks").read_text().splitlines()]
    held = [int(lock[5].split(":")[2]) for lock in locks if int(lock[4]) != os.getpid()]
    return [inodes[inode] for inode in held if inode in inodes]


SILENT_VMM = """#!/bin/sh
case "$*" in *--version*) exec {qemu} "$@" ;; esac
echo nothing comes from here >&2
exec sleep 1000
"""


def test_an_attempt_to_start_takes_as_long_as_the_settings_say(home: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts of 60 s would not have ended by then."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # the VMM's user has to read it
        program = Path(place, PROGRAM)
        program.write_text(SILENT_VMM.format(qemu=find(PROGRAM)))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", place, prepend=":")
        monkeypatch.setenv("PYRO_DRIVER", "qemu")
        monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
        monkeypatch.setenv("PYRO_BOOT_TIMEOUT_SECONDS", "1")
        process = start_pyro("run", "--json", "debian:12", "--", "true")
        out, errors = process.communicate(timeout=100)
    failure = json.loads(out)
    assert (process.returncode, failure["code"]) == (125, "boot_failed"), errors
    assert "vmm: nothing comes from here" in failure["details"]
    assert leftovers(home) == []
