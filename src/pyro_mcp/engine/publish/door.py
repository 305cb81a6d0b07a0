"""The listening sockets of published ports, and the clients that knock."""

import contextlib
import socket
import struct
from collections.abc import Sequence

from pyro_mcp.engine.publish.ports import Listener
from pyro_mcp.guest.link import READABLE
from pyro_mcp.host.deadline import Deadline

REST_SECONDS = 1.0  # before the next client, when this process has no descriptor for one
NO_LINGER = struct.pack("ii", 1, 0)


class Door:
    """Accepts the clients of *listeners*."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = {one.socket.fileno(): one for one in listeners}
        self._rest = Deadline.after(0)
        self.welcomed = 0  # how many clients there have been

    @property
    def resting(self) -> bool:
        """Whether no client can be had just now."""
        return not self._rest.passed

    @property
    def knocks(self) -> list[tuple[int, int]]:
        """What to poll for clients; nothing while it is resting."""
        return [] if self.resting else [(descriptor, READABLE) for descriptor in self._listeners]

    def accept(self, descriptor: int) -> tuple[socket.socket, int] | None:
        """The next client of a listener and the guest's port it wants; ``None`` when there is none after all."""
        listener = self._listeners[descriptor]
        try:
            client = listener.socket.accept()[0]
        except (BlockingIOError, ConnectionError):
            return None
        except OSError:
            self._rest = Deadline.after(REST_SECONDS)
            return None
        self.welcomed += 1
        return client, listener.port.guest_port

    def turn_away(self) -> None:
        """Reset the clients that wait: there is no way to the guest for them."""
        for descriptor in self._listeners:
            while (found := self.accept(descriptor)) is not None:
                reset(found[0])


def reset(client: socket.socket) -> None:
    """Close a connection so that the other side sees it broken."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    client.close()
