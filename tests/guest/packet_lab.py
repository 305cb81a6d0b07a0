"""A guest, its gateway and the world, as three network namespaces; run as a program within ``unshare --net``.

Reads ``{"rules": ..., "packets": [[name, ip packet in hex], ...], "sentinel": ..., "world": [...]}`` on stdin. Each
packet leaves the guest's device as it is, also one that no honest kernel would send; those of "world" come from the
other side. Which packets came out behind the gateway, and every counter after each, go to stdout as JSON. All runs on
one processor, so a sentinel that came through says that what went before it did not.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NET = 0x40000000
ALL = 0x0003  # ETH_P_ALL
SECONDS = 30.0
T = TypeVar("T")


def run(*argv: str, stdin: str = "") -> str:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True).stdout


def here() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def within(namespace: int, do: Callable[[], T]) -> T:
    back = here()
    if LIBC.setns(namespace, NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    try:
        return do()
    finally:
        LIBC.setns(back, NEW_NET)
        os.close(back)


def new_namespace() -> int:
    back = here()
    if LIBC.unshare(NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    made = here()
    LIBC.setns(back, NEW_NET)
    os.close(back)
    return made


def packets(device: str) -> socket.socket:
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    found.bind((device, ALL))
    found.settimeout(SECONDS)
    return found


def link_address(device: str) -> bytes:
    found = run("ip", "-j", "link", "show", "dev", device)
    return bytes.fromhex(json.loads(found)[0]["address"].replace(":", ""))


class Lab:
    """The gateway is the namespace this program was started in."""

    def __init__(self, rules: str) -> None:
        self.guest, self.world = new_namespace(), new_namespace()
        for namespace in (self.guest, self.world):  # their kernels' own packets would be counted
            within(namespace, lambda: run("sysctl", "-q", "-e", "-w", "net.ipv6.conf.default.disable_ipv6=1"))
        for device, peer, namespace in (("tap0", "eth0", self.guest), ("uplink0", "up0", self.world)):
            run("ip", "link", "add", device, "type", "veth", "peer", "name", peer)
            run("ip", "link", "set", peer, "netns", f"/proc/{os.getpid()}/fd/{namespace}")
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", "172.29.1.1/24", "dev", "tap0")
        run("ip", "address", "add", "198.18.5.2/32", "dev", "uplink0")
        for device in ("tap0", "uplink0"):
            run("ip", "link", "set", device, "up")
        run("ip", "route", "add", "198.18.0.1", "dev", "uplink0")
        run("ip", "route", "add", "default", "via", "198.18.0.1", "dev", "uplink0")
        within(self.guest, self._guest)
        within(self.world, self._world)
        run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        run("nft", "-f", "-", stdin=rules)
        self.from_guest = within(self.guest, lambda: packets("eth0"))
        self.outside = within(self.world, lambda: packets("up0"))
        self.inside = within(self.guest, lambda: packets("eth0"))
        self.inside.setblocking(False)
        self.head = link_address("tap0") + within(self.guest, lambda: link_address("eth0"))
        self.uplink_head = link_address("uplink0") + within(self.world, lambda: link_address("up0"))

    def _guest(self) -> None:
        run("ip", "address", "add", "172.29.1.2/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", "lo", "up")
        run("ip", "route", "add", "default", "via", "172.29.1.1")

    def _world(self) -> None:
        """It has every address there is."""
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", "198.18.0.1/32", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        run("ip", "route", "add", "198.18.5.2", "dev", "up0")
        run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")

    def counters(self) -> dict[str, int]:
        listing = json.loads(run("nft", "-j", "list", "counters"))["nftables"]
        found = (item["counter"] for item in listing if "counter" in item)
        return {one["name"]: one["packets"] for one in found if one["packets"]}

    def send(self, packet: bytes) -> None:
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        self.from_guest.send(self.head + kind + packet)

    def came_out(self, sentinel: bytes) -> list[str]:
        """The IP packets from the uplink that the world saw until the sentinel, a UDP packet with ports of its own."""
        self.send(sentinel)
        found = []
        limit = time.monotonic() + SECONDS
        while time.monotonic() < limit:
            frame, address = self.outside.recvfrom(65535)
            if address[2] == socket.PACKET_OUTGOING or frame[12:14] == b"\x08\x06":
                continue
            found.append(frame[14:].hex())
            if frame[30:34] == sentinel[16:20] and frame[34:38] == sentinel[20:24]:
                return found[:-1]
        raise TimeoutError("the sentinel did not come out")

    def came_in(self, packet: bytes, sentinel: bytes) -> bool:
        """Whether a packet of the world's gets to the guest."""
        self._arrived()
        self.outside.send(self.uplink_head + b"\x08\x00" + packet)
        self.came_out(sentinel)
        return any(frame[26:30] == packet[12:16] and frame[34:] == packet[20:] for frame in self._arrived())

    def _arrived(self) -> list[bytes]:
        """What the guest's device got since the last time."""
        found: list[bytes] = []
        while True:
            try:
                frame, address = self.inside.recvfrom(65535)
            except BlockingIOError:
                return found
            if address[2] != socket.PACKET_OUTGOING:
                found.append(frame)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    asked: dict[str, Any] = json.load(sys.stdin)
    lab = Lab(asked["rules"])
    sentinel = bytes.fromhex(asked["sentinel"])
    lab.came_out(sentinel)  # the neighbours know each other from now on
    lab.came_in(bytes.fromhex(asked["answer"]), sentinel)  # and the sentinel's connection is one
    results: dict[str, dict[str, Any]] = {}
    for name, packet in asked["packets"]:
        before = lab.counters()
        lab.send(bytes.fromhex(packet))
        seen = lab.came_out(sentinel)
        after = lab.counters()
        denied = [kind for kind in after if after[kind] != before.get(kind, 0)]
        results[name] = {"out": seen, "denied": denied}
    for name, packet in asked["world"]:
        before = lab.counters()
        reached = lab.came_in(bytes.fromhex(packet), sentinel)
        after = lab.counters()
        results[name] = {"in": reached, "denied": [kind for kind in after if after[kind] != before.get(kind, 0)]}
    json.dump({"results": results, "table": json.loads(run("nft", "-j", "list", "table", "inet", "pyro"))}, sys.stdout)


if __name__ == "__main__":
    main()
