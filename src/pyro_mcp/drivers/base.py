"""What every driver does, in the order in which the engine calls it.

``availability`` -> ``start`` -> ``lines`` (any number, from any process) -> ``destroy``. A driver's plan is pure:
the same launch gives the same command, and tests compare it with golden files. ``destroy`` may be called at any
time, and again. What is said over a line is not a driver's business: that is ``pyro_mcp.guest``.

Where ``Capabilities.snapshots`` says so, ``snapshot`` may follow ``start``; a launch with ``resume_from`` then starts
a machine that goes on from there.
"""

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import ExecutionMode, Isolation
from pyro_mcp.paths import MachinePaths

FILE_SLACK = 64 << 20  # bytes by which the largest file of a machine may exceed its disk or its memory


class Capabilities(NamedTuple):
    """What a driver can do, as data: the engine asks this and never for the driver's class."""

    name: str
    execution_mode: ExecutionMode
    channels: int  # operations at once; 0: no limit of the link's own
    snapshots: bool = False  # whether ``snapshot`` and ``Launch.resume_from`` work
    reclaims: bool = False  # whether ``reclaim`` does anything: not where guests return free memory by themselves


class Availability(NamedTuple):
    """Whether the driver can run a guest here; *reason* and *remedy* are for people."""

    usable: bool
    accelerator: str
    reason: str
    remedy: str = ""


class Snapshot(NamedTuple):
    """A paused machine on disk, from which any number of machines go on.

    *state* are its devices and processors, *memory* is its memory (sparse; mapped copy-on-write by those that go on,
    so nobody may write to it any more), *scratch* its writable disk (copied for each). *layout* is what
    ``Driver.layout`` gave for the machine: another layout does not fit.
    """

    state: Path
    memory: Path
    scratch: Path
    layout: str


class LaunchNetwork(NamedTuple):
    """The network of a machine.

    *plan* is what its launcher is told, but for what the driver knows (agent/netns/plan.go). *mac* is the guest's
    hardware address, 12 hex digits. *authorities*: PEM certificates that the guest is to trust, too.
    """

    plan: Mapping[str, Any]
    mac: str
    authorities: str = ""

    def told(self, *, owner: int | None) -> dict[str, Any]:
        """The whole plan. *owner*: who opens the TAP device by its name (-1: the caller).

        Without one, the VMM gets it as a descriptor.
        """
        return {**self.plan, "owner": -1 if owner is None else owner, "descriptor": owner is None}

    @property
    def colons(self) -> str:
        """The hardware address as VMMs read it."""
        return ":".join(self.mac[at : at + 2] for at in range(0, len(self.mac), 2))


class Launch(NamedTuple):
    """All that a VMM is started from. Sizes are MiB; *deadline_unix_ms* is the end of its life on the wall clock.

    *owner* is the process the machine dies with; ``None``: it outlives its starter. With *keep_directory* its files
    outlive the owner. *extra_disks* are images the guest may read besides *rootfs*; their serial numbers are
    ``extra0``, ``extra1``, ...

    *resume_from*: go on from there instead of booting; ``paths.scratch`` is a copy of its scratch disk already.
    *keep_memory_in*: a snapshot of this machine will be wanted, with its memory in this file, which does not exist
    yet. Only one of the two may be given. *network*: the guest has a network device.
    """

    machine_id: str
    vcpu_count: int
    mem_mib: int
    kernel: Path
    initramfs: Path
    rootfs: Path
    paths: MachinePaths
    agent: Path
    owner: ProcessId | None
    deadline_unix_ms: int
    keep_directory: bool = False
    debug_console: bool = False
    extra_disks: tuple[Path, ...] = ()
    resume_from: Snapshot | None = None
    keep_memory_in: Path | None = None
    network: LaunchNetwork | None = None


@dataclass(frozen=True, slots=True)
class RunningVmm:
    """The processes of a machine: our launcher, and the VMM below it."""

    launcher: ProcessId
    vmm: ProcessId


class Line(NamedTuple):
    """A way to the agent that this process has for itself.

    *connect* gives a connected stream socket or raises OSError; it may be called again. *ended* is a descriptor
    that is readable once the VMM has ended. *wanted*: whether somebody waits for a line; who does not need it should
    let go then. *redial*: a connection costs nothing, and one that stays silent is better made anew.
    """

    connect: Callable[[Deadline], socket.socket]
    ended: int
    wanted: Callable[[], bool] = lambda: False
    redial: bool = False


class Lines(Protocol):
    """The lines of one machine, for any process."""

    def take(self, deadline: Deadline) -> AbstractContextManager[Line]:
        """A line of one's own. Raises Busy when none gets free by *deadline*, MachineDied when the VMM has ended."""


class Started(Protocol):
    """A VMM that was just started, in the process that did it."""

    @property
    def running(self) -> RunningVmm:
        """Its processes."""

    def ending(self, deadline: Deadline) -> str:
        """How the VMM ended, in words; empty when it has not by *deadline*."""

    def close(self) -> None:
        """Stop listening to it; the machine goes on."""


class Driver(Protocol):
    """One kind of VMM."""

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""

    def availability(self) -> Availability:
        """Whether it can run a guest on this host; cheap, and never raises for what it is there to find."""

    def isolation(self, running: RunningVmm | None = None) -> Isolation:
        """What stands between a guest of this driver and the host: around *running* as it is, else as it will be."""

    def start(self, launch: Launch, deadline: Deadline) -> Started:
        """Start the VMM; the guest boots, or goes on from the launch's snapshot.

        Raises MachineFault when it cannot be started; nothing of it runs then.
        """

    def lines(self, paths: MachinePaths, running: RunningVmm) -> Lines:
        """The way to the agent of a machine that runs, also one that another process started."""

    def layout(self, launch: Launch) -> str:
        """All that a snapshot of *launch* depends on here, as a digest: the VMM's program, its devices, the processor.

        Not in it: the contents of the launch's files, and the machine's own names and paths. Cheap.
        """

    def snapshot(self, launch: Launch, running: RunningVmm, target: Snapshot, deadline: Deadline) -> None:
        """Pause the machine of *launch* and write *target*, whose files do not exist yet, but for the kept memory.

        No line may be in use. The machine stays paused: destroy it. Raises MachineFault, StorageFault or NoSpace.
        """

    def reclaim(self, paths: MachinePaths, running: RunningVmm, free_mib: int, deadline: Deadline) -> int:
        """Have a guest return memory that it does not use, at most *free_mib*; how many MiB came back.

        It may use all of it again at any time. Raises MachineFault.
        """

    def destroy(self, running: RunningVmm, deadline: Deadline) -> None:
        """End the VMM and its launcher, and prove it; raises MachineFault if they survive."""
