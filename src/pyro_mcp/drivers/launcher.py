"""Starting a VMM under our launcher (``pyro-agent launch``, agent/launch): the process that ends it, whatever ends us.

The launcher watches the owner and the time to live, bounds the logs, and drops privileges. It is told all by one
JSON plan, sent through a pipe, and reports through another.
"""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyro_mcp.drivers.base import Launch, RunningVmm
from pyro_mcp.drivers.failed_start import STOP_SECONDS, also
from pyro_mcp.drivers.network_faults import network_fault
from pyro_mcp.errors import MachineDied, MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage, write_atomically
from pyro_mcp.host.proc import spawn_detached
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until

CONSOLE_LIMIT = 256 << 10
LOG_LIMIT = 64 << 10
STATUS_LINE_MOST = 4096
STOP_GRACE = 3.0  # the launcher needs a moment to end the VMM and to flush its logs
SOCKET_BACKLOG = 8
ANSWER_SECONDS = 5.0
REAP_SECONDS = 1.0


class FileUse(NamedTuple):
    """A file the VMM gets as a descriptor; *flags* as for open(2).

    *lent*: the VMM opens the descriptor's path in /proc/self/fd for writing although it will only read; the launcher
    then gives it the descriptor that reads.
    """

    path: Path
    flags: int
    lent: bool = False


class SocketUse(NamedTuple):
    """A Unix socket that listens already when the VMM gets its descriptor."""

    path: Path


class LogPipe(NamedTuple):
    """A FIFO the VMM writes to, read by the launcher into the bounded log *path* of at most *limit* bytes."""

    path: Path
    limit: int
    pipe: Path


class Command(NamedTuple):
    """What the launcher starts: in *argv* the descriptors of *files* are 3, 4, 5, ... in their order.

    *namespaces* are made for it (``mount``, ``pid``, ``net``, ``ipc``, ``uts``, ``user``), *cgroups* are directories
    to remove when it has ended. *log_pipe* is a FIFO that leads into the VMM's log, as its stderr does. *network*: what
    is in the namespace ``net``, which is empty otherwise; where it says ``descriptor`` the TAP device is the descriptor
    that follows those of *files*.
    """

    argv: tuple[str, ...]
    files: tuple[FileUse | SocketUse, ...]
    namespaces: tuple[str, ...] = ()
    cgroups: tuple[Path, ...] = ()
    rlimits: tuple[tuple[str, int], ...] = ()
    log_pipe: Path | None = None
    extra_logs: tuple[LogPipe, ...] = ()
    network: Mapping[str, Any] | None = None


class Identity(NamedTuple):
    """Who the VMM runs as; ``None`` in place of this: as the caller."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Launched:
    """A launcher and its status pipe, in the process that started it."""

    def __init__(self, running: RunningVmm, status: int) -> None:
        self.running = running
        self._status = status

    def close(self) -> None:
        """Stop listening; the machine goes on."""
        os.close(self._status)

    def ending(self, deadline: Deadline) -> str:
        """How the VMM ended, in words; empty while it runs or when the launcher could not tell."""
        with contextlib.suppress(MachineFault):
            event = _read_event(self._status, deadline)
            if event.get("signal"):
                return f"the VMM was ended by signal {event['signal']} ({event.get('reason', 'unknown')})"
            return f"the VMM ended with status {event.get('exit_code')} ({event.get('reason', 'unknown')})"
        return ""


def launch(command: Command, request: Launch, deadline: Deadline, *, identity: Identity | None) -> Launched:
    """Start *command* for the machine of *request*.

    Raises MachineFault when the VMM cannot be started, NetworkUnavailable when its network cannot be made.
    """
    with contextlib.ExitStack() as stack:
        descriptors = [stack.enter_context(_opened(use)) for use in command.files]
        status_read, status_write = os.pipe()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(os.close, status_read)
            with os.fdopen(status_write, "wb"):  # ours is closed then: the pipe ends with the launcher
                plan = _plan(command, request, descriptors, status_write, identity)
                process = _spawn(request.agent, plan, [*descriptors, status_write], on_failure)
            launcher = ProcessId.of(process)
            event = _read_event(status_read, deadline)
            if event.get("part") == "network":
                raise network_fault(str(event.get("error", "")))
            if event.get("event") != "started" or launcher is None:
                raise MachineFault(f"the VMM could not be started: {event.get('error', 'its launcher ended')!s:.300}")
            running = RunningVmm(launcher, ProcessId(int(event["pid"]), int(event["start_ticks"])))
            on_failure.pop_all()
    return Launched(running, status_read)


def stop(running: RunningVmm, deadline: Deadline) -> None:
    """End the launcher and its VMM, and prove that both are gone; raises MachineFault otherwise."""
    gone = running.launcher.stop(grace=STOP_GRACE, deadline=deadline)
    # A launcher that was killed takes the VMM with it (parent-death signal), a moment later.
    gone = running.vmm.stop(grace=0.5, deadline=deadline) and gone
    _reap(running.launcher.pid, deadline)
    if not gone:
        raise MachineFault(
            f"the VMM (pid {running.vmm.pid}) did not end", remedy="Look at the process: it may wait for a hung disk."
        )


def instruct(launcher: ProcessId, request: Path, text: str) -> None:
    """Have a launcher read *request*, a file in its machine's directory; it answers by removing the file.

    Raises MachineDied when it is gone, MachineFault when it refuses or does not answer.
    """
    write_atomically(request, text.encode())
    with watched(launcher) as pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
        taken = until(lambda: not request.exists() or not launcher.alive, Deadline.after(ANSWER_SECONDS))
    if not launcher.alive:
        raise MachineDied("the virtual machine ended")
    if not taken:
        request.unlink(missing_ok=True)
        raise MachineFault(f"the launcher of the VMM did not take {request.name}")


def _reap(pid: int, deadline: Deadline) -> None:
    """Collect the launcher if it was our child, so that it does not stay a zombie.

    /proc calls it a zombie a moment before its last thread has ended and it can be waited for.
    """

    def reaped() -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return True

    until(reaped, deadline.sooner(REAP_SECONDS))


def _plan(command: Command, request: Launch, descriptors: list[int], status: int, identity: Identity | None) -> bytes:
    who = identity or Identity(-1, -1)
    owner = {"pid": request.owner.pid, "start_ticks": request.owner.start_ticks} if request.owner else None
    plan: dict[str, Any] = {
        "argv": list(command.argv),
        "env": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        "files": descriptors,
        "uid": who.uid,
        "gid": who.gid,
        "groups": list(who.groups),
        "owner": owner,
        "deadline_unix_ms": request.deadline_unix_ms,
        "directory": str(request.paths.directory),
        "keep_directory": request.keep_directory,
        "console": {"path": str(request.paths.console), "limit": CONSOLE_LIMIT},
        "log": {"path": str(request.paths.vmm_log), "limit": LOG_LIMIT, "pipe": str(command.log_pipe or "")},
        "extra_logs": [
            {"path": str(log.path), "limit": log.limit, "pipe": str(log.pipe)} for log in command.extra_logs
        ],
        "namespaces": list(command.namespaces),
        "cgroups": [str(path) for path in command.cgroups],
        "lend": [
            number
            for number, use in zip(descriptors, command.files, strict=True)
            if isinstance(use, FileUse) and use.lent
        ],
        "status_fd": status,
        "rlimits": {"core": 0, **dict(command.rlimits)},
        "oom_score_adj": 300,
    }
    if command.network is not None:
        plan["network"] = dict(command.network)
    return json.dumps(plan).encode()


def _spawn(agent: Path, plan: bytes, passed: list[int], on_failure: contextlib.ExitStack) -> int:
    """Start the launcher and send it its plan; its pid. *on_failure* ends and reaps it."""
    plan_read, plan_write = os.pipe()
    # Of a broken pipe, the status pipe tells the reason.
    with contextlib.suppress(BrokenPipeError), os.fdopen(plan_write, "wb") as sender:
        with os.fdopen(plan_read, "rb"):
            process = spawn_detached([str(agent), "launch", str(plan_read)], pass_fds=[*passed, plan_read])
            # The child's pid is all we keep: it is watched through pidfds and reaped by stop().
            process.returncode = 0
            on_failure.push(_ended(process.pid))
        sender.write(plan)
    return process.pid


def _ended(pid: int) -> Callable[[object, BaseException | None, object], None]:
    """For an ExitStack: end and reap our child *pid*, a launcher, and with it what it started."""

    def on_exit(_kind: object, error: BaseException | None, _trace: object) -> None:
        launcher, deadline = ProcessId.of(pid), Deadline.after(STOP_SECONDS)
        if launcher is not None and not launcher.stop(grace=STOP_GRACE, deadline=deadline):
            also(error, f"the launcher (pid {pid}) did not end")
        _reap(pid, deadline)

    return on_exit


def _read_event(status: int, deadline: Deadline) -> dict[str, Any]:
    """The next JSON line of the status pipe. Raises MachineFault at the deadline or when the launcher has ended."""
    line = bytearray()
    poller = select.poll()
    poller.register(status, select.POLLIN)
    while len(line) < STATUS_LINE_MOST:
        timeout = deadline.timeout
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise MachineFault("the launcher of the VMM did not answer")
        byte = os.read(status, 1)
        if not byte:
            raise MachineFault("the launcher of the VMM ended")
        if byte == b"\n":
            break
        line += byte
    try:
        event = json.loads(line)
    except ValueError as error:
        raise MachineFault("the launcher of the VMM sent nonsense") from error
    if not isinstance(event, dict):
        raise MachineFault("the launcher of the VMM sent nonsense")
    return event


@contextlib.contextmanager
def _opened(use: FileUse | SocketUse) -> Iterator[int]:
    if isinstance(use, SocketUse):
        with listening(use.path) as descriptor:
            yield descriptor
        return
    with storage(f"opening {use.path}"):
        descriptor = os.open(use.path, use.flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[int]:
    """A listening Unix socket at *path*, replacing a stale one.

    Its address goes through the directory's descriptor, so that the length of the path does not matter.
    """
    with storage(f"making the socket {path}"):
        path.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with storage(f"making the socket {path}"):
            server.bind(f"/proc/self/fd/{directory}/{path.name}")
            server.listen(SOCKET_BACKLOG)
        yield server.fileno()
    finally:
        server.close()
        os.close(directory)


def connect(path: Path, deadline: Deadline) -> socket.socket:
    """A connection to the Unix socket at *path*, whatever the length of the path. Raises OSError."""
    with contextlib.ExitStack() as on_failure:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        on_failure.callback(client.close)
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            client.settimeout(deadline.timeout)
            client.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        on_failure.pop_all()
    return client


@contextlib.contextmanager
def watched(launcher: ProcessId) -> Iterator[int]:
    """A descriptor that is readable once the launcher, and so its VMM, has ended; raises MachineDied if it has."""
    try:
        descriptor = os.pidfd_open(launcher.pid)
    except ProcessLookupError as error:
        raise MachineDied("the virtual machine ended") from error
    try:
        if not launcher.alive:
            raise MachineDied("the virtual machine ended")
        yield descriptor
    finally:
        os.close(descriptor)
