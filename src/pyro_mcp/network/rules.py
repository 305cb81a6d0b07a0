"""The policy of a machine as nftables rulesets: pure text, one for its namespace, one for the host.

The namespace's ruleset is the whole policy. It is made anew for every start of a machine and has no state but its
counters, so nothing that is kept of a machine (a template, a record, a disk) can get around it.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.addresses import GATEWAY, GUEST, TAP, UPLINK
from pyro_mcp.network.pins import Pins
from pyro_mcp.network.ranges import CLASSES, collapsed

TABLE = "pyro"
DNS_PORT = 53
# So many connections at once: each costs memory in the host's kernel.
CONNECTIONS_MOST = 4096
LEARNED_MOST = 4096
# What a guest may be denied, each with its counter of packets.
DENIALS = {
    "spoofed": "from an address that is not the guest's",
    "ipv6": "IPv6, which guests do not have",
    "options": "with IP options, such as a route of the sender's choice",
    "invalid": "that belong to no connection and open none",
    "gateway": "to the gateway, but for DNS",
    "host": "to this host",
    "metadata": "to a metadata service of a cloud",
    "private": "to a private network",
    "shared": "to a carrier's network (100.64.0.0/10)",
    "link_local": "to link-local addresses",
    "multicast": "to multicast groups",
    "reserved": "to addresses that are nobody's",
    "unlisted": "to what is not on the allow-list",
    "protocol": "of a protocol that is not let out",
    "connections": f"for more than {CONNECTIONS_MOST} connections at once",
    "inbound": "from outside, not asked for",
}
# What the kernel would drop uncounted.
UNROUTABLE = ("0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4")
INTERFACE = re.compile(r"[a-z0-9]{1,15}")


def machine_ruleset(policy: NetworkPolicy, pins: Pins, *, host: Sequence[str] = ()) -> str:
    """The ruleset of a machine's namespace, for ``nft -f``.

    *host*: IPv4 addresses and subnets that stay closed whatever the policy opens: the host's own, and the uplink's.
    Counters ``denied_*`` have the packets that were denied; when the policy learns, ``reached`` has what was let out.
    """
    sets = [_ranges("host", host), _ranges("opened", policy.private)]
    sets += [_ranges(name, map(str, networks)) for name, networks in CLASSES.items()]
    sets += [_set("pinned", "ipv4_addr . inet_service", (f"{address} . {port}" for address, port in pins.endpoints))]
    sets += [_set("reached", "ipv4_addr . inet_proto . inet_service", (), f"size {LEARNED_MOST}; flags dynamic")]
    counters = [f"counter denied_{name} {{ }}" for name in DENIALS]
    body = [*counters, *sets, *_prerouting(), *_forward(policy), *_input(), *_rest()]
    return "\n".join([f"table inet {TABLE} {{", *(f"\t{line}" for line in body), "}", ""])


def host_ruleset(table: str, interface: str, address: str) -> str:
    """The host's side of a veth pair, for ``nft -f``: a table of its own, with masquerading, that ends with its owner.

    *interface*: the host's end. *address*: that of the namespace's end. Nothing gets from the machine into the host
    itself, nor into other machines' pairs (``py*``), and nothing comes in that was not asked for.
    """
    if not INTERFACE.fullmatch(interface) or not re.fullmatch(r"[a-z0-9_]+", table):
        raise ValueError(f"{table!r} and {interface!r} are no names of ours")
    address = str(IPv4Address(address))
    mine, theirs = f'iifname "{interface}"', f'oifname "{interface}"'
    lines = [
        f"table inet {table} {{",
        "\tflags owner;",
        "\tchain input {",
        "\t\ttype filter hook input priority filter - 10; policy accept;",
        f"\t\t{mine} drop",
        "\t}",
        "\tchain forward {",
        "\t\ttype filter hook forward priority filter - 10; policy accept;",
        f"\t\t{mine} meta nfproto ipv6 drop",
        f"\t\t{mine} ip saddr != {address} drop",
        f'\t\t{mine} oifname "py*" drop',
        f"\t\t{mine} accept",
        f"\t\t{theirs} ip daddr {address} ct state established,related accept",
        f"\t\t{theirs} drop",
        "\t}",
        "\tchain postrouting {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        f'\t\tip saddr {address} oifname != "{interface}" masquerade',
        "\t}",
        "}",
        "",
    ]
    return "\n".join(lines)


def _prerouting() -> list[str]:
    """What is wrong whatever the policy says, before the kernel thinks about it (defragmented, not yet tracked)."""
    from_guest = f'iifname "{TAP}"'
    return _chain(
        "prerouting",
        "type filter hook prerouting priority raw; policy accept;",
        _deny("ipv6", "meta nfproto ipv6"),
        _deny("spoofed", f"{from_guest} ip saddr != {GUEST}"),
        _deny("options", f"{from_guest} ip hdrlength != 5"),
        _deny("multicast", f"{from_guest} ip daddr @multicast"),
        _deny("reserved", f"{from_guest} ip daddr {{ {', '.join(UNROUTABLE)} }}"),
    )


def _input() -> list[str]:
    """To the namespace itself: the resolver, and nothing else."""
    to_resolver = f'iifname "{TAP}" ip daddr {GATEWAY}'
    return _chain(
        "input",
        "type filter hook input priority filter; policy drop;",
        f"{to_resolver} udp dport {DNS_PORT} accept",
        f"{to_resolver} tcp dport {DNS_PORT} accept",
        _refuse("host", f'iifname "{TAP}" ip daddr @host'),
        _refuse("gateway", f'iifname "{TAP}"'),
        _deny("inbound", f'iifname "{UPLINK}"'),
    )


def _forward(policy: NetworkPolicy) -> list[str]:
    """From the guest to the uplink: every packet is judged, and only answers come back."""
    closed = [_refuse(name, f"ip daddr @{name}") for name in ("private", "shared", "link_local", "reserved")]
    note = ["meta l4proto { tcp, udp } update @reached { ip daddr . meta l4proto . th dport }"]
    if policy.mode == "allow-list":
        ways = ["meta l4proto { tcp, udp } ip daddr . th dport @pinned accept", *closed, _refuse("unlisted")]
        let_out = []
    else:
        ways = ["ip daddr @opened goto let_out", *closed, "goto let_out"]
        noted = note if policy.mode == "learn" else []
        accepted = ["meta l4proto { tcp, udp } accept", "icmp type echo-request accept"]
        let_out = _chain("let_out", *noted, *accepted, _refuse("protocol"))
    return [
        # Tells the guest at once, so that nothing waits for an answer that never comes.
        *_chain("refuse", "meta l4proto tcp reject with tcp reset", "reject with icmp admin-prohibited"),
        *let_out,
        *_chain(
            "guest",
            _deny("invalid", "ct state invalid"),
            _refuse("connections", f"ct state new ct count over {CONNECTIONS_MOST}"),
            _refuse("host", "ip daddr @host"),
            _refuse("metadata", "ip daddr @metadata"),
            *ways,
        ),
        *_chain(
            "forward",
            "type filter hook forward priority filter; policy drop;",
            f'iifname "{UPLINK}" oifname "{TAP}" ct state established,related accept',
            _deny("inbound", f'iifname "{UPLINK}"'),
            f'iifname "{TAP}" oifname "{UPLINK}" goto guest',
            _refuse("gateway", f'iifname "{TAP}"'),
        ),
    ]


def _rest() -> list[str]:
    """From the namespace itself only the guest is answered; what leaves for the uplink has the uplink's address."""
    return [
        *_chain(
            "output",
            "type filter hook output priority filter; policy drop;",
            f'oifname "{TAP}" ip daddr {GUEST} accept',
        ),
        *_chain(
            "postrouting",
            "type nat hook postrouting priority srcnat; policy accept;",
            f'oifname "{UPLINK}" masquerade',
        ),
    ]


def _chain(name: str, *rules: str) -> list[str]:
    return [f"chain {name} {{", *(f"\t{rule}" for rule in rules), "}"]


def _deny(kind: str, match: str) -> str:
    """Count and drop, without a word."""
    return f"{match} counter name denied_{kind} drop"


def _refuse(kind: str, match: str = "") -> str:
    """Count and reject."""
    return f"{match} counter name denied_{kind} goto refuse".lstrip()


def _ranges(name: str, networks: Iterable[str]) -> str:
    return _set(name, "ipv4_addr", collapsed(networks), "flags interval")


def _set(name: str, kind: str, elements: Iterable[str], flags: str = "") -> str:
    found = list(elements)
    parts = [f"type {kind}", flags, f"elements = {{ {', '.join(found)} }}" if found else ""]
    return f"set {name} {{ {'; '.join(part for part in parts if part)}; }}"
