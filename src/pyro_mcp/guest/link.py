"""A nonblocking stream socket to the guest, watched together with the machine's process."""

import itertools
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_mcp.errors import MachineDied, PyroError
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.host.deadline import Deadline

READABLE = select.POLLIN
WRITABLE = select.POLLOUT
LONGEST_WAIT = 3600.0  # poll(2) counts milliseconds in an int; callers wait again
END_SHOWS_WITHIN = 0.25  # a process closes its sockets a moment before its pidfd tells of its end
BUFFERS_AT_ONCE = 16


def _ended() -> PyroError:
    return MachineDied("the virtual machine ended")


@dataclass(frozen=True, slots=True)
class Watch:
    """The machine's process: *descriptor* (a pidfd) is readable once it ended, *explain* makes the error."""

    descriptor: int
    explain: Callable[[], PyroError] = _ended


class Link:
    """The socket, its outgoing bytes and the watch. Owns the socket. For one thread at a time."""

    def __init__(self, connected: socket.socket, watch: Watch | None) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._watch = watch
        self._outgoing: deque[memoryview] = deque()

    def close(self) -> None:
        """Close the socket; bytes not yet sent are dropped. May be called again."""
        self._outgoing.clear()
        self._socket.close()

    @property
    def pending(self) -> bool:
        """Whether queued bytes wait to be sent."""
        return bool(self._outgoing)

    def queue(self, *parts: bytes) -> None:
        """Add bytes to send, without copying them."""
        self._outgoing.extend(memoryview(part) for part in parts if part)

    def flush(self) -> None:
        """Send what the socket takes now.

        After a close by the other side the rest is dropped; reading tells of it.
        """
        while self._outgoing:
            try:
                first = list(itertools.islice(self._outgoing, BUFFERS_AT_ONCE))
                sent = self._socket.sendmsg(first, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except ConnectionError:
                self._outgoing.clear()
                return
            self._drop(sent)

    def _drop(self, sent: int) -> None:
        while sent:
            first = self._outgoing[0]
            if sent < len(first):
                self._outgoing[0] = first[sent:]
                return
            sent -= len(first)
            self._outgoing.popleft()

    def receive_into(self, space: memoryview) -> int:
        """Bytes read into *space*, 0 when none are there now.

        Raises LinkLost when the other side has closed.
        """
        try:
            count = self._socket.recv_into(space)
        except BlockingIOError:
            return 0
        except ConnectionError as error:
            raise LinkLost("the link to the guest was cut") from error
        if count == 0:
            raise LinkLost("the guest closed the link")
        return count

    def cause_of(self, lost: LinkLost) -> PyroError:
        """The machine's end if that is why the link was *lost*, else *lost*; waits a moment for the news."""
        if self._watch is not None and readable(self._watch.descriptor, END_SHOWS_WITHIN):
            return self._watch.explain()
        return lost

    def wait(self, deadline: Deadline, others: Sequence[tuple[int, int]] = ()) -> dict[int, int]:
        """Wait for the socket (to read, or to write what is pending) or for one of *others*.

        *others* are pairs of a descriptor and its events. Returns what is ready by descriptor, the socket
        under ``-1``; nothing when the time (or an hour) has passed.
        Raises the watch's error when the machine has ended and all it sent is read.
        """
        descriptor = self._socket.fileno()
        poller = select.poll()
        poller.register(descriptor, READABLE | WRITABLE if self._outgoing else READABLE)
        for other, events in others:
            poller.register(other, events)
        if self._watch is not None:
            poller.register(self._watch.descriptor, READABLE)
        ready = dict(poller.poll(min(deadline.remaining, LONGEST_WAIT) * 1000))
        on_socket = ready.pop(descriptor, 0)
        if on_socket:
            ready[-1] = on_socket
        if self._watch is not None and ready.pop(self._watch.descriptor, 0) and not on_socket & ~WRITABLE:
            raise self._watch.explain()
        return ready


def readable(descriptor: int, seconds: float) -> bool:
    """Wait at most *seconds* until *descriptor* is readable."""
    poller = select.poll()
    poller.register(descriptor, READABLE)
    return bool(poller.poll(min(seconds, LONGEST_WAIT) * 1000))
