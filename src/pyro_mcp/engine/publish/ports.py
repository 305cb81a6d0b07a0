"""Which port of this host leads to which port of a guest, and the socket that listens there."""

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass, replace

from pyro_mcp.errors import InvalidRequest, PortUnavailable
from pyro_mcp.model import PublishedPort

LOOPBACK = "127.0.0.1"
PORT_MOST = 65_535
BACKLOG = 128
SHAPE = re.compile(r"(?:(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<host>[0-9]{1,5}):(?P<guest>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Port:
    """*host_port* 0: one that is free. *address* is an IP address of this host; all of them: ``0.0.0.0``, ``::``."""

    host_port: int
    guest_port: int
    address: str = LOOPBACK

    def __post_init__(self) -> None:
        try:
            good = "%" not in self.address and str(ipaddress.ip_address(self.address)) == self.address
        except ValueError:
            good = False
        if not good:
            raise InvalidRequest(f"{self.address!r:.80} is not an IP address", remedy="For instance 127.0.0.1 or ::1.")
        if not 0 <= self.host_port <= PORT_MOST or not 0 < self.guest_port <= PORT_MOST:
            raise InvalidRequest(
                f"ports are from 1 to {PORT_MOST}", remedy="Host port 0 takes one that is free. For instance: 8080:80"
            )

    @classmethod
    def parse(cls, text: str) -> "Port":
        """Read ``[ADDR:]HOSTPORT:GUESTPORT``; an IPv6 address stands in brackets. Raises InvalidRequest."""
        found = SHAPE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidRequest(
                f"{text!r:.80} is not [ADDR:]HOSTPORT:GUESTPORT",
                remedy="For instance 8080:80, or 0:80 for a free port of this host; ADDR: an IP address of this host.",
            )
        address = (found["address"] or LOOPBACK).removeprefix("[").removesuffix("]")
        return cls(int(found["host"]), int(found["guest"]), address)

    @property
    def on_loopback(self) -> bool:
        """Whether only programs of this host reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def place(self) -> str:
        """Where it is on this host: ``127.0.0.1:8080``, ``[::1]:8080``."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.host_port}"

    @property
    def text(self) -> str:
        """The form that ``parse`` reads."""
        return f"{self.place}:{self.guest_port}"

    def public(self) -> PublishedPort:
        """What users see of it."""
        return {"address": self.address, "host_port": self.host_port, "guest_port": self.guest_port}


@dataclass(frozen=True, slots=True)
class Listener:
    """A port, and its listening socket."""

    port: Port
    socket: socket.socket

    @classmethod
    def open(cls, port: Port) -> "Listener":
        """Listen; the port is then as it really is. Raises PortUnavailable."""
        listening = socket.socket(socket.AF_INET6 if ":" in port.address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if listening.family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((port.address, port.host_port))
            listening.listen(BACKLOG)
            return cls(replace(port, host_port=listening.getsockname()[1]), listening)
        except OSError as error:
            listening.close()
            raise _unavailable(port, error) from error

    def close(self) -> None:
        """Stop listening. May be called again."""
        self.socket.close()


def _unavailable(port: Port, error: OSError) -> PortUnavailable:
    if error.errno == errno.EADDRINUSE:
        return PortUnavailable(f"{port.place} is in use by another program")
    if error.errno == errno.EACCES:
        return PortUnavailable(
            f"this user may not listen on {port.place}", remedy="Choose a host port above 1023, or 0 for a free one."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return PortUnavailable(
            f"this host has no address {port.address}", remedy="Leave the address out: then it is 127.0.0.1."
        )
    return PortUnavailable(f"cannot listen on {port.place}: {error.strerror}")
