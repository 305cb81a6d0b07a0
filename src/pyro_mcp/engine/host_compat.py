"""Running a command on the host itself: only when no VMM works and the user said so.

There is no isolation here, and every result says so.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pyro_mcp.engine.outcome import CommandIO, Outcome, Tee
from pyro_mcp.errors import HostFault, Interrupted, InvalidRequest
from pyro_mcp.guest.control import Cancel, SendSignal
from pyro_mcp.guest.execution import OutputSinks
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec

CHUNK = 1 << 16
TIMED_OUT = 124
DRAIN_SECONDS = 0.2


def execute(command: CommandSpec, directory: Path, io: CommandIO, sinks: OutputSinks | None = None) -> Outcome:
    """Run *command* with ``bash -lc`` in *directory*, with nothing of the caller's environment but PATH and HOME.

    Its output goes to *sinks*, or else to those of *io*.
    """
    if command.user or command.terminal is not None:
        raise InvalidRequest("a user and a terminal need a guest; host-compat has none")
    env = {"PATH": proc.PATH, "HOME": os.environ.get("HOME", str(directory)), **command.env}
    cwd = Path(command.cwd) if command.cwd else directory
    if not cwd.is_dir():
        raise HostFault(f"{cwd} is not a directory on this host")
    began = time.monotonic()
    with proc.start_streaming(
        [proc.find("bash"), "-lc", command.command], env=env, cwd=cwd, with_stdin=io.stdin is not None
    ) as process:
        io.started()
        timed_out = _Loop(process, io, sinks or Tee(io)).run(Deadline.after(command.timeout_seconds))
        status = -signal.SIGKILL if timed_out else process.wait()
    duration = round((time.monotonic() - began) * 1000)
    if timed_out:
        return Outcome(TIMED_OUT, timed_out=True, causes=("timeout",), duration_ms=duration)
    causes = ("signal",) if status < 0 else ()
    return Outcome(status if status >= 0 else 128 - status, timed_out=False, causes=causes, duration_ms=duration)


class _Loop:
    """Moves bytes and orders until the command has ended. The caller ends the process group."""

    def __init__(self, process: proc.Process, io: CommandIO, sinks: OutputSinks) -> None:
        self._process = process
        self._control = io.control
        self._source = io.source()
        self._unsent = b""
        self._sinks: dict[int, Callable[[memoryview], None]] = {}
        for stream, sink in ((process.stdout, sinks.on_stdout), (process.stderr, sinks.on_stderr)):
            if stream is not None:
                self._sinks[stream.fileno()] = sink

    def run(self, deadline: Deadline) -> bool:
        """Until the command and its output have ended; ``True`` when *deadline* came first.

        Raises Interrupted when it is cancelled.
        """
        pidfd = os.pidfd_open(self._process.pid)
        try:
            limit = deadline
            while self._sinks:
                ready = self._wait(pidfd, limit)
                if deadline.passed:
                    return True
                if not ready:
                    return False  # the command has ended, and what else holds its output open is quiet
                self._serve(ready)
                if pidfd in ready:
                    limit = deadline.sooner(DRAIN_SECONDS)
            return not _ended(pidfd, deadline)
        finally:
            os.close(pidfd)

    def _wait(self, pidfd: int, limit: Deadline) -> set[int]:
        poller = select.poll()
        for descriptor in (*self._sinks, self._control.fileno()):
            poller.register(descriptor, select.POLLIN)
        if not _ended(pidfd, Deadline.after(0)):
            poller.register(pidfd, select.POLLIN)
        if self._process.stdin is not None:
            self._watch_stdin(poller, self._process.stdin.fileno())
        return {descriptor for descriptor, _ in poller.poll(min(limit.remaining, 3600) * 1000)}

    def _watch_stdin(self, poller: select.poll, pipe: int) -> None:
        source = self._source.descriptor if self._source is not None else None
        if self._unsent or source is None:
            poller.register(pipe, select.POLLOUT)
        else:
            poller.register(source, select.POLLIN)

    def _serve(self, ready: set[int]) -> None:
        for descriptor in ready & set(self._sinks):
            data = os.read(descriptor, CHUNK)
            if data:
                self._sinks[descriptor](memoryview(data))
            else:
                del self._sinks[descriptor]
        self._obey()
        if self._process.stdin is not None:
            self._feed()

    def _obey(self) -> None:
        for order in self._control.take():
            if isinstance(order, Cancel):
                raise Interrupted("the command was cancelled")
            if isinstance(order, SendSignal):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, order.number)

    def _feed(self) -> None:
        """Pass on input as far as the pipe takes it now."""
        pipe = self._process.stdin
        if pipe is None or self._source is None:
            return
        if not self._unsent:
            descriptor = self._source.descriptor
            if descriptor is not None and not _ended(descriptor, Deadline.after(0)):
                return
            data = self._source.read(CHUNK)
            if data is None:
                return
            if not data:
                self._close_stdin()
                return
            self._unsent = data
        try:
            self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdin = None
            self._unsent = b""


def _ended(descriptor: int, deadline: Deadline) -> bool:
    """Whether *descriptor* is readable by *deadline*: a pidfd whose process has ended, or input that is there."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(min(deadline.remaining, 3600) * 1000))
