"""Sessions with the agent of a machine: a driver's line, and the protocol spoken over it."""

import contextlib
from collections.abc import Iterator

from pyro_mcp.drivers.base import Lines
from pyro_mcp.guest.channel import QUIET, Session, open_session
from pyro_mcp.guest.link import Watch
from pyro_mcp.host.deadline import Deadline


class Channels:
    """Opens sessions over *lines*; *quiet* as for ``open_session``."""

    def __init__(self, lines: Lines, *, quiet: float = QUIET) -> None:
        self._lines = lines
        self._quiet = quiet

    @contextlib.contextmanager
    def open(self, deadline: Deadline) -> Iterator[Session]:
        """A session of one's own; see ``ChannelOpener``."""
        with self._lines.take(deadline) as line:
            watch, quiet = Watch(line.ended), QUIET if line.redial else self._quiet
            with open_session(line.connect, deadline, watch=watch, quiet=quiet, redial=line.redial) as session:
                session.wanted = line.wanted
                yield session
