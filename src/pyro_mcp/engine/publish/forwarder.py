"""Carries the clients of published ports to the guest: one loop, and one line to the agent while there are clients."""

import contextlib
import select
from collections.abc import Callable
from contextlib import AbstractContextManager

from pyro_mcp.engine.publish.connection import Connection
from pyro_mcp.engine.publish.door import REST_SECONDS, Door
from pyro_mcp.errors import MachineDied, PyroError
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.link import READABLE
from pyro_mcp.guest.tunnel import Tunnel
from pyro_mcp.host.deadline import Deadline

LINE_SECONDS = 10.0
ANSWER_SECONDS = 10.0
IDLE_SECONDS = 1.0  # after so long without a client the line is given back
# At the end, what is still under way may arrive; silence for so long means that nothing is.
LAST_QUIET_SECONDS = 0.2
LAST_SECONDS = 2.0


class Forwarder:
    """Serves the clients at *door* over *channels* until the machine ends, or until *stop* is readable.

    *ended* is readable once the machine has ended. *using* is entered while there are clients.
    """

    def __init__(
        self,
        door: Door,
        channels: ChannelOpener,
        *,
        ended: int,
        stop: int,
        using: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._door = door
        self._channels = channels
        self._ends = (ended, stop)
        self._stop = stop
        self._using = using

    def serve(self) -> None:
        """Serve clients. A failure of the link costs those it carries; the next one gets a new link."""
        while self._client_waits():
            welcomed = self._door.welcomed
            try:
                with self._using(), self._channels.open(Deadline.after(LINE_SECONDS)) as session:
                    _Round(session, self._door, self._stop).run()
            except MachineDied:
                return
            except PyroError:
                if self._door.welcomed == welcomed:  # no client got as far as the guest, so the next would not either
                    self._door.turn_away()

    def _client_waits(self) -> bool:
        """Wait for a client; ``False`` when the end came first."""
        ready: dict[int, int] = {}
        while not ready:
            poller = select.poll()
            for descriptor, events in (*self._door.knocks, *((end, READABLE) for end in self._ends)):
                poller.register(descriptor, events)
            ready = dict(poller.poll(REST_SECONDS * 1000 if self._door.resting else None))
        return not any(end in ready for end in self._ends)


class _Round:
    """The clients of one session: from the first one until there has been none for a while."""

    def __init__(self, session: Session, door: Door, stop: int) -> None:
        self._session = session
        self._door = door
        self._stop = stop
        self._tunnel = Tunnel(session, Deadline.after(ANSWER_SECONDS))
        self._connections: dict[int, Connection] = {}  # by the number of the stream
        self._quiet = Deadline.after(IDLE_SECONDS)
        self._last: Deadline | None = None  # once it is to end

    def run(self) -> None:
        """Carry them. Whatever ends it, every client's connection is ended, too."""
        try:
            while not self._done():
                self._turn()
        finally:
            for connection in self._connections.values():
                connection.abort()

    def _done(self) -> bool:
        if self._last is not None:
            return not self._connections or self._quiet.passed or self._last.passed
        return not self._connections and (self._quiet.passed or self._session.wanted())

    def _turn(self) -> None:
        """Wait for one event and handle it."""
        clients = {one.fileno: one for one in self._connections.values() if one.fileno >= 0}
        interests = [(descriptor, one.events) for descriptor, one in clients.items()]
        ready = self._session.wait(self._moment(), [*self._others(), *interests])
        if self._stop in ready and self._last is None:
            self._last = Deadline.after(LAST_SECONDS)
        for descriptor, events in ready.items():
            if descriptor in clients:
                clients[descriptor].turn(events)
            elif descriptor not in (-1, self._stop):
                self._welcome(descriptor)
        if -1 in ready or self._session.pending:
            self._exchange()
        if ready:
            self._quiet = Deadline.after(IDLE_SECONDS if self._last is None else LAST_QUIET_SECONDS)
            self._connections = {number: one for number, one in self._connections.items() if not one.over}

    def _exchange(self) -> None:
        """Send and receive what can be without waiting; no whole frame stays behind."""
        self._session.advance()
        for stream, data in self._tunnel.events():
            self._connections[stream.number].arrived(data)

    def _moment(self) -> Deadline:
        """When to look again though nothing happens."""
        if self._last is not None:
            return Deadline(min(self._quiet.at, self._last.at))
        if not self._connections:
            return self._quiet
        return Deadline.after(REST_SECONDS) if self._door.resting else Deadline.never()

    def _others(self) -> list[tuple[int, int]]:
        """What to poll besides the session and the clients."""
        if self._last is not None:
            return []
        return [(self._stop, READABLE), *([] if self._tunnel.full else self._door.knocks)]

    def _welcome(self, descriptor: int) -> None:
        found = self._door.accept(descriptor)
        if found is not None:
            connection = Connection(found[0], self._tunnel, found[1])
            self._connections[connection.stream.number] = connection
