"""The cgroup of a jailed machine: the limits, from what the machine was asked to be, in the words of v1 or v2.

The jailer makes it below ``pyro-machines``; our launcher removes it. Sources: Linux,
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/; Firecracker's docs/jailer.md.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.firecracker.cell import Cgroup
from pyro_mcp.model import MACHINE_ID

ROOT = Path("/sys/fs/cgroup")
PARENT = "pyro-machines"
CONTROLLERS = ("cpu", "memory", "pids")
MIB = 1 << 20
# Beside the guest's memory: the VMM itself (5 MiB), and room for the page cache of its disk, which is charged to it.
VMM_MIB = 128
# One thread per vCPU, two of the VMM's own, and helpers the kernel starts in its name (KVM's, vhost).
THREADS = 32
CPU_PERIOD = 100_000  # microseconds
STALE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """What this host offers. *controllers* are those that can be used."""

    version: Literal[1, 2]
    root: Path
    controllers: tuple[str, ...]


def hierarchy(root: Path = ROOT) -> Hierarchy | None:
    """The cgroups that can be made here; ``None`` where none can (a container with a read-only mount, no root)."""
    if (root / "cgroup.controllers").exists():
        return _unified(root)
    usable = tuple(name for name in CONTROLLERS if _can_make(root / name))
    return Hierarchy(1, root, usable) if usable else None


def _unified(root: Path) -> Hierarchy | None:
    """Version 2: the parent is made here, so that what cannot be delegated is known before a machine starts."""
    parent = root / PARENT
    try:
        offered = (root / "cgroup.controllers").read_text().split()
        parent.mkdir(exist_ok=True)
    except OSError:
        return None
    for directory in (root, parent):
        for name in CONTROLLERS:
            if name in offered:
                _enable(directory, name)
    try:
        enabled = (parent / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    usable = tuple(name for name in CONTROLLERS if name in enabled)
    return Hierarchy(2, root, usable) if usable else None


def _enable(directory: Path, controller: str) -> None:
    # EBUSY: this is a container's root, with processes of its own; then there are no limits to give.
    with contextlib.suppress(OSError):
        (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _can_make(controller: Path) -> bool:
    """Version 1: whether the parent can be made in this controller's tree."""
    if not (controller / "cgroup.procs").exists():
        return False
    try:
        (controller / PARENT).mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def machine_cgroup(launch: Launch, found: Hierarchy | None) -> Cgroup | None:
    """The cgroup of *launch*; ``None`` where there is none to be had."""
    if found is None:
        return None
    memory = (launch.mem_mib + VMM_MIB) * MIB
    quota = (launch.vcpu_count + 1) * CPU_PERIOD  # the VMM's own threads work beside the vCPUs
    if found.version == 2:
        limits = {
            "cpu": (("cpu.max", f"{quota} {CPU_PERIOD}"),),
            "memory": (("memory.max", str(memory)), ("memory.oom.group", "1")),
            "pids": (("pids.max", str(launch.vcpu_count + THREADS)),),
        }
        directories = [found.root / PARENT / launch.machine_id]
    else:
        limits = {
            "cpu": (("cpu.cfs_period_us", str(CPU_PERIOD)), ("cpu.cfs_quota_us", str(quota))),
            "memory": (("memory.limit_in_bytes", str(memory)),),
            "pids": (("pids.max", str(launch.vcpu_count + THREADS)),),
        }
        directories = [found.root / name / PARENT / launch.machine_id for name in found.controllers]
    values = tuple(value for name in found.controllers for value in limits[name])
    return Cgroup(found.version, PARENT, values, tuple(directories))


def remove_stale(found: Hierarchy | None, machines: Path) -> None:
    """Remove empty cgroups of machines that are gone: what a launcher leaves that was killed with SIGKILL.

    One that is in use cannot be removed (EBUSY); one that was just made is left alone.
    """
    if found is None:
        return
    parents = (
        [found.root / PARENT] if found.version == 2 else [found.root / name / PARENT for name in found.controllers]
    )
    for parent in parents:
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(parent)):
                old = time.time() - entry.stat().st_mtime > STALE_SECONDS
                if MACHINE_ID.fullmatch(entry.name) and old and not (machines / entry.name).exists():
                    with contextlib.suppress(OSError):
                        Path(entry.path).rmdir()
