"""One client of a published port, and its stream in the tunnel. Never waits, holds at most a window of bytes."""

import select
import socket

from pyro_mcp.engine.publish.door import reset
from pyro_mcp.guest.tunnel import WINDOW, Reason, Stream, Tunnel

GOOD = (None, Reason.ENDED)
BROKEN = select.POLLERR | select.POLLNVAL


class Connection:
    """Owns *client*. Every method may be called after its end, and does nothing then."""

    def __init__(self, client: socket.socket, tunnel: Tunnel, guest_port: int) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client: socket.socket | None = client
        self._tunnel = tunnel
        self._waiting = bytearray()  # for the client
        self._client_ended = False
        self._told_end = False
        self._gone = False  # it has said its last; some of that may be unread
        self.stream: Stream = tunnel.open(guest_port)

    @property
    def over(self) -> bool:
        """Whether both the client and the guest are done with it."""
        return self._client is None and self.stream.closed is not None

    @property
    def fileno(self) -> int:
        """The descriptor to poll for :attr:`events`; negative: there is nothing to wait for."""
        if self._client is None or (self._gone and not self._listening):  # poll would report the latter without end
            return -1
        return self._client.fileno()

    @property
    def events(self) -> int:
        """What the client is waited for."""
        return (select.POLLIN if self._listening else 0) | (select.POLLOUT if self._waiting else 0)

    def turn(self, events: int) -> None:
        """Do what the client is ready for."""
        if events & select.POLLOUT:
            self._flush()
        if self._listening and events & (select.POLLIN | select.POLLHUP | BROKEN):
            self._read()
        elif events & BROKEN:
            self.abort()
        elif events & select.POLLHUP:  # both directions have ended in good order
            self._gone = True

    def arrived(self, data: memoryview) -> None:
        """Take what the guest says: *data*, or the news that are in the stream."""
        if self._client is None:
            return  # what was under way when it broke; the guest gets no credit for more
        if data:
            sent = 0 if self._waiting else self._send(data)
            self._waiting += data[sent:]
        self._settle()

    def abort(self) -> None:
        """Break it off, to both sides."""
        if self.stream.closed is None and self._client is not None:
            self._tunnel.reset(self.stream)
        self._close(broken=True)

    @property
    def _listening(self) -> bool:
        """Whether the client may be read: it has something to say, and the guest has room for it."""
        return not self._client_ended and self.stream.closed is None and self.stream.credit > 0

    def _read(self) -> None:
        if self._client is None:
            return
        try:
            data = self._client.recv(min(self.stream.credit, WINDOW))
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if data:
            self._tunnel.send(self.stream, data)
        else:
            self._client_ended = True
            self._tunnel.end(self.stream)
            self._settle()

    def _flush(self) -> None:
        sent = self._send(self._waiting)
        del self._waiting[:sent]
        self._settle()

    def _send(self, data: memoryview | bytearray) -> int:
        """How much of *data* the client took."""
        if self._client is None:
            return 0
        try:
            sent = self._client.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            self.abort()
            return 0
        self._tunnel.taken(self.stream, sent)
        return sent

    def _settle(self) -> None:
        """Pass on the guest's end, or its break, once all that came before it is with the client."""
        if self._client is None or self._waiting:
            return
        if self.stream.closed not in GOOD:
            self._close(broken=True)
        elif self.stream.closed is Reason.ENDED or (self.stream.ended and self._client_ended):
            self._close(broken=False)
        elif self.stream.ended and not self._told_end:
            self._told_end = True
            try:
                self._client.shutdown(socket.SHUT_WR)
            except OSError:
                self.abort()

    def _close(self, *, broken: bool) -> None:
        if self._client is not None:
            if broken:
                reset(self._client)
            self._client.close()
            self._client = None
            self._waiting.clear()
