"""The lines to a QEMU guest: virtio-serial ports, each for one client at a time, taken under a file lock."""

import contextlib
import os
import socket
from collections.abc import Iterator

from pyro_mcp.drivers.base import Line
from pyro_mcp.drivers.launcher import connect, watched
from pyro_mcp.drivers.qemu.plan import LINKS
from pyro_mcp.errors import Busy
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import attempts
from pyro_mcp.paths import MachinePaths


class SerialLines:
    """The ports of one machine."""

    def __init__(self, paths: MachinePaths, launcher: ProcessId) -> None:
        self._paths = paths
        self._launcher = launcher

    @contextlib.contextmanager
    def take(self, deadline: Deadline) -> Iterator[Line]:
        """The first free port; see ``Lines``."""
        with watched(self._launcher) as ended, self._free_port(deadline) as port:

            def connect_port(limit: Deadline) -> socket.socket:
                return connect(self._paths.link(port), limit)

            yield Line(connect_port, ended, self._wanted)

    @contextlib.contextmanager
    def _free_port(self, deadline: Deadline) -> Iterator[int]:
        port, lock = self._take_port(deadline)
        try:
            yield port
        finally:
            os.close(lock)

    def _take_port(self, deadline: Deadline) -> tuple[int, int]:
        """A port and the descriptor of its lock; while there is none, others see that it is wanted."""
        with contextlib.ExitStack() as waiting:
            asked = False
            for _ in attempts(deadline):
                for port in range(LINKS):
                    lock = try_lock(self._paths.link_lock(port))
                    if lock is not None:
                        return port, lock
                if not asked and (sign := try_lock(self._paths.link_wanted, shared=True)) is not None:
                    waiting.callback(os.close, sign)
                    asked = True
        raise Busy(f"all {LINKS} lines to the guest are in use", remedy="Wait until another command on it has ended.")

    def _wanted(self) -> bool:
        """Whether a process waits for a port: it shares the lock that nobody can have alone then."""
        lock = try_lock(self._paths.link_wanted)
        if lock is not None:
            os.close(lock)
        return lock is None
