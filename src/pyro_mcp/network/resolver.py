"""What the resolver of a machine is told: ``agent/resolve`` reads exactly this."""

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.pins import Pins
from pyro_mcp.network.ranges import CLASSES
from pyro_mcp.network.rules import DNS_PORT

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLV_CONF_BYTES_MOST = 64 * 1024
SERVERS_MOST = 3  # as the C library has it
# Where the C library asks when resolv.conf names nobody.
LOCAL = (f"127.0.0.1:{DNS_PORT}",)


def resolver_config(
    policy: NetworkPolicy, pins: Pins, *, stats: Path | str, resolv_conf: Path = RESOLV_CONF
) -> dict[str, Any]:
    """The plan's ``resolver``. With an allow-list it asks nobody; else the host's own resolvers, on the host's side."""
    listed = policy.mode == "allow-list"
    return {
        "mode": "pinned" if listed else "learn" if policy.mode == "learn" else "forward",
        "names": {name: list(addresses) for name, addresses in pins.names.items()},
        "upstreams": [] if listed else list(upstreams(resolv_conf)),
        "closed": [str(network) for networks in CLASSES.values() for network in networks],
        "opened": list(policy.private),
        "stats": str(stats),
    }


def upstreams(resolv_conf: Path = RESOLV_CONF) -> tuple[str, ...]:
    """The resolvers of this host, ``address:port``."""
    try:
        with resolv_conf.open("rb") as file:
            lines = file.read(RESOLV_CONF_BYTES_MOST).decode(errors="replace").splitlines()
    except OSError:
        return LOCAL
    words = [line.split() for line in lines]
    named = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return tuple(found for found in map(_server, named) if found)[:SERVERS_MOST] or LOCAL


def _server(text: str) -> str:
    """``address:port`` of a name server; empty when the text is no address."""
    try:
        return f"{IPv4Address(text)}:{DNS_PORT}"
    except AddressValueError:
        pass
    try:
        return f"[{IPv6Address(text)}]:{DNS_PORT}"
    except AddressValueError:
        return ""
