"""The IPv4 ranges that are not the public internet, by the class a denial is counted under.

Source: the IANA registry of special-purpose addresses (RFC 6890 and what updated it), and the documents of the cloud
providers for the addresses of their metadata services.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

# Link-local, shared, private-use and even public-looking addresses at which clouds hand out credentials.
METADATA = tuple(
    map(IPv4Network, ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
SHARED = (IPv4Network("100.64.0.0/10"),)  # between carriers and their customers
LINK_LOCAL = (IPv4Network("169.254.0.0/16"),)
MULTICAST = (IPv4Network("224.0.0.0/4"),)
RESERVED = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
        ),
    )
)
# The first class that has an address is its class.
CLASSES: dict[str, tuple[IPv4Network, ...]] = {
    "metadata": METADATA,
    "private": PRIVATE,
    "shared": SHARED,
    "link_local": LINK_LOCAL,
    "multicast": MULTICAST,
    "reserved": RESERVED,
}
# What ``--allow-private`` may open: everything else is closed for good.
OPENABLE = (*PRIVATE, *SHARED)


def class_of(address: IPv4Address) -> str | None:
    """The class of an address that is closed by default; ``None`` for the public internet."""
    return next((name for name, nets in CLASSES.items() if any(address in net for net in nets)), None)


def collapsed(texts: Iterable[str]) -> list[str]:
    """CIDR *texts* without overlaps, in order: nft takes no others."""
    return [str(network) for network in collapse_addresses(IPv4Network(text) for text in texts)]
