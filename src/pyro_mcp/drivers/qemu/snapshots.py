"""Snapshots of QEMU machines: the memory lies in a file, everything else is migrated into another one.

QEMU is asked to leave out of the migration what is mapped from a file and shared (capability ``x-ignore-shared``, made
for this use: Kata's templates). The descriptor of the state file goes over the control socket, because QEMU may start
no program (``spawn=deny``) and opens no path of ours.
"""

import hashlib
import os
import socket
from pathlib import Path

from pyro_mcp.drivers.base import Launch, RunningVmm, Snapshot, Started
from pyro_mcp.drivers.launcher import Command, Identity, connect
from pyro_mcp.drivers.qemu.qmp import command_line, control, translated
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, storage
from pyro_mcp.paths import MachinePaths

NAMELESS = "0" * 12
NOWHERE = Path("/")
CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]
STATE_FD = "state"
LOAD = b"".join(
    (
        command_line("qmp_capabilities"),
        command_line("migrate-set-capabilities", capabilities=CAPABILITIES),
        command_line("getfd", fdname=STATE_FD),
        command_line("migrate-incoming", uri=f"fd:{STATE_FD}"),
    )
)


def make_memory(path: Path, mib: int, identity: Identity | None) -> None:
    """Make the file that a machine's memory is kept in, for the VMM's user alone."""
    with storage(f"making {path}"):
        path.unlink(missing_ok=True)  # of an attempt that failed
    with storage(f"making {path}"), path.open("xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        os.ftruncate(stream.fileno(), mib << 20)
        if identity is not None:
            os.fchown(stream.fileno(), identity.uid, identity.gid)


def save(launch: Launch, target: Snapshot, deadline: Deadline) -> None:
    """Pause the machine and write *target*: QEMU stops the processors, then all is copied as it stands.

    It is not stopped before: the state would say so, and what goes on from it would wait to be told to.
    """
    with control(launch.paths.control, deadline) as qmp:
        qmp.execute("migrate-set-capabilities", deadline, capabilities=CAPABILITIES)
        with storage(f"writing {target.state}"):
            state = os.open(target.state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            qmp.execute("migrate", deadline, uri=qmp.pass_descriptor(state, deadline))
            qmp.wait_for_migration(deadline)
        finally:
            os.close(state)
    if launch.keep_memory_in is None:
        raise ValueError("the machine was not started to be snapshotted")
    if launch.keep_memory_in != target.memory:
        copy_sparse(launch.keep_memory_in, target.memory)
    copy_sparse(launch.paths.scratch, target.scratch)


class Resuming:
    """A QEMU that was started to go on from a snapshot, and has been told to; see ``Started``.

    What it answers is not waited for: when it cannot load the state it ends, and says why in its log.
    """

    def __init__(self, started: Started, source: Snapshot, paths: MachinePaths, deadline: Deadline) -> None:
        self._started = started
        self._control = _told_to_load(paths, source, deadline)

    @property
    def running(self) -> RunningVmm:
        """See ``Started``."""
        return self._started.running

    def ending(self, deadline: Deadline) -> str:
        """See ``Started``."""
        return self._started.ending(deadline)

    def close(self) -> None:
        """See ``Started``. Not before the guest answers: QEMU drops what it has not yet carried out."""
        self._control.close()
        self._started.close()


def _told_to_load(paths: MachinePaths, source: Snapshot, deadline: Deadline) -> socket.socket:
    """A connection to the control socket with all that QEMU is told on its way, in one piece; it need not be up yet."""
    with storage(f"reading {source.state}"):
        state = os.open(source.state, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with translated():
            connected = connect(paths.control, deadline)
            try:
                socket.send_fds(connected, [LOAD], [state])
            except BaseException:
                connected.close()
                raise
            return connected
    finally:
        os.close(state)


def nameless(launch: Launch) -> Launch:
    """The launch without what is one machine's own."""
    network = launch.network._replace(plan={}, mac=NAMELESS) if launch.network else None
    return launch._replace(
        machine_id=NAMELESS,
        paths=MachinePaths(NOWHERE),
        resume_from=None,
        keep_memory_in=NOWHERE,
        network=network,
    )


def layout(command: Command, cpu: str) -> str:
    """The digest of a nameless command line, of QEMU's own file, and of the processor *cpu*."""
    with storage(f"looking at {command.argv[0]}"):
        status = Path(command.argv[0]).stat()
    program = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256("\0".join((*command.argv, program, cpu)).encode()).hexdigest()
