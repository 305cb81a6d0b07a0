"""A bench for drivers: machines below a directory of a test's own, started by the driver itself, without records."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.drivers.base import Driver, Launch, RunningVmm
from pyro_mcp.engine.boot import boot, resume
from pyro_mcp.engine.channels import Channels
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.client import Agent
from pyro_mcp.guest.execution import execute
from pyro_mcp.guest.outcome import Exit, new_job
from pyro_mcp.guest.stdin import BytesStdin
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, private_directory, remove_tree
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.model import CommandSpec, new_machine_id
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.manifest import Runtime
from pyro_mcp.runtime.scratch import empty_scratch

MEM_MIB = 256
DISK_MIB = 256
CGROUPS = Path("/sys/fs/cgroup")
SETTLE_SECONDS = 5.0


class ContractBroken(AssertionError):
    """A driver did not do what every driver does."""


def expect(condition: object, otherwise: object) -> None:
    """Raise ContractBroken, saying *otherwise*, unless *condition* holds."""
    if not condition:
        raise ContractBroken(str(otherwise))


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended, and what it wrote."""

    end: Exit
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine on the bench whose agent answers."""

    launch: Launch
    running: RunningVmm
    channels: Channels
    driver: Driver

    @property
    def agent(self) -> Agent:
        """Its agent."""
        return Agent(self.channels)

    def run(self, command: str, *, stdin: bytes | None = None, seconds: float = 60.0) -> Ran:
        """Run a shell command as root."""
        spec = CommandSpec(command, seconds, stdin=stdin is not None)
        sinks = CaptureSinks(4 << 20)
        source = None if stdin is None else BytesStdin(stdin)
        with self.channels.open(Deadline.after(seconds)) as session:
            end = execute(session, spec, new_job(), sinks=sinks, stdin=source, deadline=Deadline.after(seconds + 60))
        return Ran(end, b"".join(sinks.stdout.parts()), b"".join(sinks.stderr.parts()))


@dataclass(frozen=True, slots=True)
class Bench:
    """*paths*: below a directory of the test's own, but for the cache. *seconds*: what a boot may take.

    *disk_mib*: the size of a machine's disk.
    """

    driver: Driver
    paths: Paths
    runtime: Runtime
    rootfs: Path
    seconds: float
    disk_mib: int = DISK_MIB

    @contextlib.contextmanager
    def prepared(self, **changes: object) -> Iterator[Launch]:
        """A launch with its directory and its disk; when it is left, nothing of it may be there any more."""
        machine_id = new_machine_id()
        files = self.paths.machine(machine_id)
        private_directory(files.directory)
        copy_sparse(empty_scratch(self.paths, self.disk_mib, Deadline.after(60)), files.scratch)
        vsock = self.driver.capabilities.execution_mode == "guest_vsock"
        launch = Launch(
            machine_id=machine_id,
            vcpu_count=1,
            mem_mib=MEM_MIB,
            kernel=self.runtime.kernel,
            initramfs=self.runtime.initramfs_vsock if vsock else self.runtime.initramfs,
            rootfs=self.rootfs,
            paths=files,
            agent=self.runtime.agent,
            owner=ProcessId.current(),
            deadline_unix_ms=0,
        )
        try:
            yield launch._replace(**changes)  # type: ignore[arg-type]  # the tests' changes are fields
            gone = until(lambda: not leftovers(launch), Deadline.after(SETTLE_SECONDS))
            expect(gone, f"left behind: {leftovers(launch)}")
        finally:
            remove_tree(files.directory)

    @contextlib.contextmanager
    def machine(self, **changes: object) -> Iterator[Machine]:
        """A machine that was booted, or resumed, and is destroyed at the end."""
        with self.prepared(**changes) as launch, self.started(launch) as machine:
            yield machine

    @contextlib.contextmanager
    def started(self, launch: Launch) -> Iterator[Machine]:
        """The machine of a launch that was prepared."""
        seen: list[RunningVmm] = []
        try:
            bring_up = boot if launch.resume_from is None else resume
            running = bring_up(self.driver, launch, seconds=self.seconds, started=seen.append)
            yield Machine(launch, running, Channels(self.driver.lines(launch.paths, running)), self.driver)
        finally:
            for one in seen:
                self.driver.destroy(one, Deadline.after(30))


def leftovers(launch: Launch) -> list[str]:
    """Processes that name the machine, mounts of it, and its cgroups."""
    found = [f"mount {line.split()[4]}" for line in _lines(Path("/proc/self/mountinfo")) if launch.machine_id in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            command = _read(entry / "cmdline")
            if launch.machine_id.encode() in command:
                found.append(f"process {entry.name} {command[:100]!r}")
    return found + [f"cgroup {path}" for path in CGROUPS.glob(f"**/{launch.machine_id}")]


def _lines(path: Path) -> list[str]:
    return _read(path).decode(errors="replace").splitlines()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""
