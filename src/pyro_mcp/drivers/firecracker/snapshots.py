"""Snapshots of Firecracker machines: written inside the cell, then moved out; read from there by bind mounts.

Every path in a snapshot is one of the cell's own names, the same in each machine, so that nothing has to be changed
in it for another machine. Memory is written as a difference to a fresh machine, which leaves the file sparse: a full
snapshot would write (and flush) every byte of guest memory.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from pyro_mcp.drivers.base import Launch, Snapshot
from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.cell import RUN
from pyro_mcp.drivers.firecracker.requests import boot_requests, snapshot_requests
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, storage
from pyro_mcp.paths import MachinePaths
from pyro_mcp.runtime.firecracker import Vmm

STATE_FILE = "state.new"
MEMORY_FILE = "memory.new"
NAMELESS = "0" * 12
NOWHERE = Path("/")
# Every machine that goes on from it opens it read-only, each as a user of its own; the directory keeps others out.
MODE = 0o444


def layout(launch: Launch, vmm: Vmm, cpu: str) -> str:
    """The digest of what a snapshot depends on: the requests, the VMM, the processor *cpu*."""
    nameless = launch._replace(
        machine_id=NAMELESS,
        paths=MachinePaths(NOWHERE),
        resume_from=None,
        keep_memory_in=NOWHERE,
        network=launch.network._replace(plan={}, mac=NAMELESS) if launch.network else None,
    )
    requests = [asdict(request) for request in boot_requests(nameless, vmm.capabilities)]
    parts = [requests, vmm.digests, vmm.capabilities.snapshot_format, vmm.capabilities.text, cpu]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(api: Api, launch: Launch, target: Snapshot, deadline: Deadline) -> None:
    """Pause the machine and write *target*."""
    if launch.keep_memory_in is None:
        raise ValueError("the machine was not started to be snapshotted")
    state, memory = (launch.paths.run / name for name in (STATE_FILE, MEMORY_FILE))
    api.send_all(snapshot_requests(f"{RUN}/{STATE_FILE}", f"{RUN}/{MEMORY_FILE}"), deadline)
    if launch.keep_memory_in == target.memory:
        target.memory.unlink(missing_ok=True)
    for made, wanted in ((state, target.state), (memory, target.memory)):
        _move(made, wanted)
    copy_sparse(launch.paths.scratch, target.scratch)


def _move(made: Path, wanted: Path) -> None:
    """Take over a file that the VMM wrote. It is the VMM's until now, so nothing but a plain file is taken."""
    with storage(f"writing {wanted}"):
        descriptor = os.open(made, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            copy_sparse(Path(f"/proc/self/fd/{descriptor}"), wanted, mode=MODE)
        finally:
            os.close(descriptor)
        made.unlink()
