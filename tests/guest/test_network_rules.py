"""What the rulesets do to real packets: every range and protocol, as a hostile guest would send them."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.network.counters import denials, learned
from pyro_mcp.network.pins import pin
from pyro_mcp.network.policy import parse
from pyro_mcp.network.rules import CONNECTIONS_MOST, DENIALS, machine_ruleset

LAB = Path(__file__).with_name("packet_lab.py")
TCP, UDP, ICMP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP
GUEST, UPLINK, ECHO_SERVER = "172.29.1.2", "198.18.5.2", "93.184.216.34"
HOST = ("5.6.7.8", "192.168.7.1")
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.0.1",
    "172.32.0.1",
    "100.128.0.1",
    "11.0.0.1",
    "223.255.255.254",
)
CLOSED = {
    "host": HOST,
    "metadata": ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    "private": ("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255"),
    "shared": ("100.64.0.1", "100.127.255.254"),
    "link_local": ("169.254.0.1", "169.254.255.254"),
    "multicast": ("224.0.0.1", "224.0.0.251", "239.255.255.250"),
    "reserved": ("0.0.0.1", "0.1.2.3", "127.0.0.1", "127.255.0.1", "192.0.0.1", "192.0.2.1", "192.88.99.1",
                 "198.18.0.1", "198.19.255.1", "198.51.100.1", "203.0.113.1", "240.0.0.1",
                 "255.255.255.254", "255.255.255.255"),
    "gateway": ("172.29.1.1", "172.29.1.255"),
}  # fmt: skip


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(to: str, protocol: int, payload: bytes, *, source: str = GUEST, options: bytes = b"", piece: int = 0) -> bytes:
    """An IPv4 packet; *piece* is the word with the fragment's flags and place."""
    words = 5 + len(options) // 4
    length = words * 4 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, 77, piece, 64, protocol, 0)
    head += IPv4Address(source).packed + IPv4Address(to).packed + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(to: str, port: int = 443, *, source: str = GUEST, sport: int = 4000, options: bytes = b"") -> bytes:
    return ip(to, UDP, struct.pack("!HHHH", sport, port, 12, 0) + b"pyro", source=source, options=options)


def tcp(to: str, port: int = 443, *, flags: int = 2, source: str = GUEST, sport: int = 4001) -> bytes:
    segment = struct.pack("!HHIIBBHHH", sport, port, 1, 0, 0x50, flags, 1024, 0, 0)
    false_head = IPv4Address(source).packed + IPv4Address(to).packed + struct.pack("!HH", TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(false_head + segment)) + segment[18:]
    return ip(to, TCP, segment, source=source)


def icmp(to: str, kind: int = 8, *, inner: bytes = b"pyropyro") -> bytes:
    message = struct.pack("!BBHHH", kind, 3 if kind == 3 else 0, 0, 0 if kind == 3 else 9, 0) + inner
    return ip(to, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def raw(to: str, protocol: int) -> bytes:
    return ip(to, protocol, b"\0" * 16)


def ipv6(to: str, protocol: int = UDP) -> bytes:
    payload = struct.pack("!HHHH", 4000, 443, 8, 0)
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return head + IPv6Address("fd00::2").packed + IPv6Address(to).packed + payload


# The answer as the guest gets it: what an error of the guest is about.
ANSWERED = udp(GUEST, 4007, source=ECHO_SERVER, sport=7)
SENTINEL = udp(ECHO_SERVER, 7, sport=4007)
ANSWER = udp(UPLINK, 4007, source=ECHO_SERVER, sport=7)
KINDS: dict[str, Callable[[str], bytes]] = {"udp": udp, "tcp": tcp, "ping": icmp}
# (name, packet, class it is denied as) whatever the policy is
ALWAYS: list[tuple[str, bytes, str]] = [
    *((f"spoofed {source}", udp("1.1.1.1", source=source), "spoofed")
      for source in ("172.29.1.1", "172.29.1.3", "1.1.1.1", "10.0.0.5", "127.0.0.1", "0.0.0.1", UPLINK)),
    *((f"ipv6 {to}", ipv6(to, protocol), "ipv6")
      for to in ("2606:4700::1111", "fe80::1", "ff02::1", "fd00::1") for protocol in (UDP, TCP, 58)),
    ("a route of the sender's choice", udp("1.1.1.1", options=bytes([131, 7, 4, 10, 0, 0, 1, 0])), "options"),
    ("a recorded route", udp("1.1.1.1", options=bytes([7, 7, 4, 0, 0, 0, 0, 0])), "options"),
    ("a segment without flags", tcp("1.1.1.1", flags=0), "invalid"),
    *((f"a malformed packet of protocol {number}", raw("1.1.1.1", number), "invalid") for number in (132, 136)),
    ("an answer to no ping", icmp("1.1.1.1", 0), "invalid"),
    *((f"gateway {port}", make("172.29.1.1", port), "gateway") for make in (udp, tcp) for port in (1, 22, 80, 54)),
    *((f"host {port} {make.__name__}", make(to, port), "host")
      for make in (udp, tcp) for port in (22, 53, 443) for to in HOST[:1]),
]  # fmt: skip


def closed(
    kinds: dict[str, Callable[[str], bytes]], classes: dict[str, tuple[str, ...]]
) -> list[tuple[str, bytes, str]]:
    return [
        (f"{name} {address}", make(address), kind)
        for kind, addresses in classes.items()
        for address in addresses
        for name, make in kinds.items()
    ]


def through(rules: str, packets: dict[str, bytes], world: dict[str, bytes] | None = None) -> dict[str, Any]:
    asked = {
        "rules": rules,
        "sentinel": SENTINEL.hex(),
        "answer": ANSWER.hex(),
        "packets": [[name, packet.hex()] for name, packet in packets.items()],
        "world": [[name, packet.hex()] for name, packet in (world or {}).items()],
    }
    namespaces = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *namespaces, sys.executable, str(LAB)],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    for result in answer["results"].values():
        for packet in map(bytes.fromhex, result.get("out", [])):
            assert IPv4Address(packet[12:16]) == IPv4Address(UPLINK), "the guest's own address got out"
    return answer


def ruleset(**said: Any) -> str:  # noqa: ANN401 - as parse
    policy = parse(**said)
    assert policy is not None
    names = {"a.example": ["1.1.1.1", ECHO_SERVER], "db.example": ["10.1.2.3"]}
    return machine_ruleset(policy, pin(policy, names.__getitem__), host=HOST)


def require(results: dict[str, Any], expected: dict[str, str]) -> None:
    """Each packet was denied as it should, counted once under that class alone, and nothing of it got out."""
    found = {name: (results[name]["out"], results[name]["denied"]) for name in expected}
    assert found == {name: ([], [f"denied_{kind}"]) for name, kind in expected.items()}


def require_out(results: dict[str, Any], names: list[str], packets: dict[str, bytes]) -> None:
    """Each packet got out as it was, but for its source."""
    for name in names:
        assert results[name]["denied"] == [], name
        (out,) = map(bytes.fromhex, results[name]["out"])
        assert (out[9], out[16:20]) == (packets[name][9], packets[name][16:20]), name


@pytest.fixture(scope="module")
def public() -> tuple[dict[str, Any], dict[str, str], dict[str, bytes], list[str]]:
    denied = [*ALWAYS, *closed(KINDS, CLOSED)]
    denied += [
        (f"protocol {number} {to}", raw(to, number), kind)
        for number in (2, 4, 41, 47, 50, 253)
        for to, kind in (("1.1.1.1", "protocol"), ("10.0.0.1", "private"), ("169.254.169.254", "metadata"))
    ]
    denied.append(("an error about a connection, elsewhere", icmp("10.0.0.9", 3, inner=ANSWERED), "invalid"))
    denied.append(("an error about a connection", icmp(ECHO_SERVER, 3, inner=ANSWERED), "protocol"))
    open_ = {f"{name} {to}": make(to) for to in PUBLIC for name, make in KINDS.items()}
    open_ |= {f"{make.__name__} port {port}": make("1.1.1.1", port) for make in (udp, tcp) for port in (1, 53, 8080)}
    inputs = {"dns udp": udp("172.29.1.1", 53), "dns tcp": tcp("172.29.1.1", 53)}
    packets = {**{name: packet for name, packet, _ in denied}, **open_, **inputs}
    world = {
        "to the uplink": udp(UPLINK, 4000, source="1.1.1.1", sport=5),
        "to the guest": udp(GUEST, 4000, source="1.1.1.1", sport=5),
        "to the resolver": udp("172.29.1.1", 53, source="1.1.1.1"),
        "a handshake": tcp(GUEST, 22, source="1.1.1.1"),
        "an answer": ANSWER,
    }
    answer = through(ruleset(network=True), packets, world)
    return answer, {name: kind for name, _, kind in denied}, packets, list(open_)


def test_everything_closed_is_closed_and_counted_under_its_class(public: Any) -> None:  # noqa: ANN401
    answer, denied, _, _ = public
    require(answer["results"], denied)


def test_the_public_internet_is_open_for_tcp_udp_and_ping(public: Any) -> None:  # noqa: ANN401
    answer, _, packets, names = public
    require_out(answer["results"], names, packets)


def test_the_gateway_takes_questions_and_nothing_else(public: Any) -> None:  # noqa: ANN401
    answer, _, _, _ = public
    for name in ("dns udp", "dns tcp"):
        assert answer["results"][name] == {"out": [], "denied": []}


def test_from_outside_only_answers_come_in(public: Any) -> None:  # noqa: ANN401
    results = public[0]["results"]
    for name in ("to the uplink", "to the guest", "to the resolver", "a handshake"):
        assert results[name] == {"in": False, "denied": ["denied_inbound"]}, name
    assert results["an answer"]["in"]


def test_the_counters_are_read_as_nft_shows_them(public: Any) -> None:  # noqa: ANN401
    counts = denials(public[0]["table"]["nftables"])
    assert set(counts) == set(DENIALS) - {"unlisted", "connections"}
    assert all(count > 0 for count in counts.values())


def test_an_allow_list_lets_out_what_is_on_it_and_nothing_else() -> None:
    rules = ruleset(
        allow_hosts=["a.example", "a.example:7", "db.example:5432", "8.8.8.8:22"], allow_private=["10.0.0.0/8"]
    )
    open_ = {
        **{f"{make.__name__} {to} {port}": make(to, port)
           for make in (udp, tcp) for to in ("1.1.1.1", ECHO_SERVER) for port in (80, 443, 7)},
        "the database": tcp("10.1.2.3", 5432),
        "a literal address": tcp("8.8.8.8", 22),
    }  # fmt: skip
    half = struct.pack("!HHHH", 4000, 443, 24, 0)
    denied = [
        *ALWAYS,
        *closed(KINDS, {kind: found for kind, found in CLOSED.items() if kind != "private"}),
        *((f"{name} {to}", make(to, 443), "unlisted")
          for name, make in (("udp", udp), ("tcp", tcp)) for to in ("8.8.8.8", "9.9.9.9", "1.0.0.1")),
        *((f"port {port}", tcp("1.1.1.1", port), "unlisted") for port in (22, 53, 81, 444, 8443)),
        *((f"another resolver {to}", udp(to, 53), "unlisted") for to in ("8.8.8.8", "1.1.1.1", "9.9.9.9")),
        *((f"ping {to}", icmp(to), "unlisted") for to in ("1.1.1.1", "8.8.8.8")),
        *((f"protocol {number}", raw("1.1.1.1", number), "unlisted") for number in (4, 41, 47, 50, 253)),
        # What looks like an allowed port to somebody who does not look at the protocol.
        ("ports of another protocol", ip("1.1.1.1", 253, half + b"\0" * 16), "unlisted"),
        ("beside the database", tcp("10.1.2.3", 22), "private"),
        ("beyond the database", tcp("10.1.2.4", 5432), "private"),
        ("a ping to the database", icmp("10.1.2.3"), "private"),
        ("an error about a connection, elsewhere", icmp("9.9.9.9", 3, inner=ANSWERED), "invalid"),
    ]  # fmt: skip
    packets = {**{name: packet for name, packet, _ in denied}, **open_}
    answer = through(rules, packets)
    require(answer["results"], {name: kind for name, _, kind in denied})
    require_out(answer["results"], list(open_), packets)


def test_fragments_are_judged_by_the_packet_they_make() -> None:
    datagram = struct.pack("!HHHH", 4000, 25, 24, 0) + b"\0" * 16
    allowed = struct.pack("!HHHH", 4000, 443, 24, 0) + b"\0" * 16
    packets = {
        "first": ip("1.1.1.1", UDP, datagram[:8], piece=0x2000),
        "rest": ip("1.1.1.1", UDP, datagram[8:], piece=0x0001),
        "first of a good one": ip("1.1.1.1", UDP, allowed[:16], piece=0x2000),
        "rest of a good one": ip("1.1.1.1", UDP, allowed[16:], piece=0x0002),
    }
    results = through(ruleset(allow_hosts=["a.example", "a.example:7"]), packets)["results"]
    assert results["first"] == {"out": [], "denied": []}
    assert results["rest"] == {"out": [], "denied": ["denied_unlisted"]}
    assert results["first of a good one"] == {"out": [], "denied": []}
    assert results["rest of a good one"]["denied"] == []
    assert results["rest of a good one"]["out"] != []


def test_an_opened_range_is_open_but_for_the_host_in_it() -> None:
    packets = {f"{name} {to}": make(to) for to in ("192.168.7.5", "192.168.7.254") for name, make in KINDS.items()}
    denied = {"the host in it": tcp("192.168.7.1", 22), "beside it": tcp("192.168.8.1"), "another": udp("10.0.0.1")}
    answer = through(ruleset(allow_private=["192.168.7.0/24"]), {**packets, **denied})
    require_out(answer["results"], list(packets), packets)
    require(answer["results"], {"the host in it": "host", "beside it": "private", "another": "private"})


def test_learning_keeps_what_was_reached_and_not_what_was_denied() -> None:
    packets = {"a": tcp("1.1.1.1", 443), "b": udp("8.8.8.8", 53), "c": tcp("10.0.0.1", 443), "d": icmp("9.9.9.9")}
    table = through(ruleset(source="learn"), packets)["table"]["nftables"]
    asked = {"names": {"a.example": ["1.1.1.1"], "unused.example": ["9.9.9.9"]}}
    assert learned(table, asked) == ["8.8.8.8:53", f"{ECHO_SERVER}:7", "a.example:443"]


def test_a_guest_has_only_so_many_connections_at_once() -> None:
    rules = ruleset(network=True)
    assert rules.count(f"ct count over {CONNECTIONS_MOST}") == 1
    many = {str(n): udp("1.1.1.1", sport=10000 + n) for n in range(60)}
    results = through(rules.replace(f"over {CONNECTIONS_MOST}", "over 40"), many)["results"]
    assert results["30"]["denied"] == []
    assert results["59"] == {"out": [], "denied": ["denied_connections"]}
