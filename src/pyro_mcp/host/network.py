"""What this host's network looks like, from /proc/net (proc(5)): of the network namespace we are in."""

import fcntl
import re
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path

ROUTES = Path("/proc/net/route")
LOCAL_ADDRESSES = Path("/proc/net/fib_trie")
USUAL_MTU = 1500
LEAST_MTU = 576
SIOCGIFMTU = 0x8921  # netdevice(7)
HOST_ADDRESS = re.compile(r"\|-- (\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})\n\s+/32 host LOCAL")


def routed_addresses() -> frozenset[str]:
    """The destinations of this host's routes."""
    return frozenset(str(destination) for destination, _ in _routes())


def default_mtu() -> int:
    """The largest packet, in bytes, that the device of the default route takes."""
    for destination, device in _routes():
        if int(destination) == 0:
            return max(_mtu(device), LEAST_MTU)
    return USUAL_MTU


def host_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this host, but for its loopback's."""
    try:
        text = LOCAL_ADDRESSES.read_text()
    except OSError:
        return ()
    found = {IPv4Address(match) for match in HOST_ADDRESS.findall(text)}
    return tuple(str(address) for address in sorted(found) if not address.is_loopback)


def _routes() -> list[tuple[IPv4Address, str]]:
    try:
        lines = ROUTES.read_text().splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [(IPv4Address(bytes.fromhex(field[1])[::-1]), field[0]) for field in fields if len(field) > 1]


def _mtu(device: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFMTU, struct.pack("16si", device.encode(), 0))
        except OSError:
            return USUAL_MTU
    mtu: int = struct.unpack("16si", answer)[1]
    return mtu
