"""From a launch to the command line that starts Firecracker in its cell: pure, and compared with golden files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.drivers.base import FILE_SLACK, Launch
from pyro_mcp.drivers.firecracker.cell import (
    API,
    FIRECRACKER,
    LOG,
    METRICS,
    SEAL,
    SEAL_HOME,
    Cell,
    confine_plan,
)
from pyro_mcp.drivers.launcher import Command, LogPipe

OPEN_FILES = 2048  # devices, sockets, and one descriptor for each connection to the guest (at most 1023)
METRICS_LIMIT = 256 << 10
LEVEL = "Warn"
NETWORKED = "--network"  # another
LANDLOCK_REQUIRED = "--landlock=required"  # a word for the seal, which takes it away


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs, verified, as the host sees them."""

    firecracker: Path
    jailer: Path


def command(launch: Launch, cell: Cell, binaries: Binaries, *, largest_file: int) -> Command:
    """What the launcher starts. *largest_file* is the size in bytes of the largest file the VMM may write."""
    argv = tuple(_argv(launch, cell, binaries, largest_file))
    plan = confine_plan(cell, launch, binaries.firecracker, argv)
    limits = () if cell.kind == "jailer" else (("nofile", OPEN_FILES), ("fsize", largest_file + FILE_SLACK))
    return Command(
        argv=(str(launch.agent), "confine", json.dumps(plan, sort_keys=True)),
        files=(),
        namespaces=cell.namespaces,
        cgroups=cell.cgroup.directories if cell.cgroup else (),
        rlimits=limits,
        log_pipe=launch.paths.log_pipe,
        extra_logs=(LogPipe(launch.paths.metrics, METRICS_LIMIT, launch.paths.metrics_pipe),),
        network=_network(launch, cell),
    )


def _network(launch: Launch, cell: Cell) -> dict[str, Any] | None:
    """Firecracker opens the TAP device by its name, as the user of its cell."""
    if launch.network is None:
        return None
    return launch.network.told(owner=cell.identity.uid if cell.identity else -1)


def _argv(launch: Launch, cell: Cell, binaries: Binaries, largest_file: int) -> Iterator[str]:
    if cell.kind == "jailer":
        yield from _jailer(launch, cell, binaries, largest_file)
        yield "--"
        if cell.landlock:
            yield LANDLOCK_REQUIRED
        if launch.network is not None:
            yield NETWORKED
    else:
        yield f"/{FIRECRACKER}" if cell.kind == "namespaces" else str(binaries.firecracker)
        yield from ("--id", launch.machine_id)
    # Relative: the working directory is the cell's root in every kind.
    yield from ("--api-sock", API, "--log-path", LOG, "--level", LEVEL, "--metrics-path", METRICS)


def _jailer(launch: Launch, cell: Cell, binaries: Binaries, largest_file: int) -> Iterator[str]:
    if cell.identity is None:
        raise ValueError("the jailer needs an identity")
    yield str(binaries.jailer)
    yield from ("--id", launch.machine_id)
    yield from ("--exec-file", str(launch.paths.jail / SEAL_HOME / SEAL))
    yield from ("--uid", str(cell.identity.uid), "--gid", str(cell.identity.gid))
    yield from ("--chroot-base-dir", str(launch.paths.jail))
    # The namespaces are the launcher's work: a pid namespace made by the jailer (--new-pid-ns) would leave the VMM an
    # orphan that no parent-death signal reaches; an empty network namespace needs no name on the host.
    if cell.cgroup is not None:
        yield from ("--cgroup-version", str(cell.cgroup.version), "--parent-cgroup", cell.cgroup.parent)
        for name, value in cell.cgroup.values:
            yield from ("--cgroup", f"{name}={value}")
    yield from ("--resource-limit", f"no-file={OPEN_FILES}")
    yield from ("--resource-limit", f"fsize={largest_file + FILE_SLACK}")
