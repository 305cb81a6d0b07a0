"""The real agent serving a directory of the host: what a push or a pull does, without a guest."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pyro_mcp.guest.channel import Session, open_session
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.runtime.agent import AGENT

STOP_SECONDS = 30.0


class LocalAgent:
    """A ``ChannelOpener`` whose guest is a directory: *base*``/workspace``. A context manager.

    ``PYRO_TEST_AGENT`` names another binary than the installed one.
    """

    def __init__(self, base: Path, *prefix: str) -> None:
        self.workspace = base / "workspace"
        self.area = base / "area"
        self._prefix = prefix
        self._path = base / "socket"

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        descriptor = self._listener.fileno()
        agent = os.environ.get("PYRO_TEST_AGENT", str(AGENT))
        self._process = subprocess.Popen(
            [*self._prefix, agent, "files", str(descriptor), str(self.workspace), str(self.area)],
            pass_fds=[descriptor],
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it, once it has cleaned up."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        try:
            assert self._process.wait(STOP_SECONDS) == 0
        finally:
            self._process.kill()
            self._process.wait()

    def connect(self, _deadline: Deadline | None = None) -> socket.socket:
        """A new connection."""
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self._path))
        return connected

    @contextlib.contextmanager
    def open(self, deadline: Deadline) -> Iterator[Session]:
        """A session, as a driver opens one."""
        with open_session(self.connect, deadline) as session:
            yield session

    def staged(self) -> list[str]:
        """What is left in the staging area."""
        return sorted(path.name for path in self.area.glob("*"))
