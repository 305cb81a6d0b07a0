"""What the resolver of a machine is told."""

from pathlib import Path

import pytest

from pyro_mcp.network.pins import NO_PINS, Pins
from pyro_mcp.network.policy import parse
from pyro_mcp.network.resolver import resolver_config, upstreams


def test_an_allow_list_has_its_names_and_nobody_to_ask(tmp_path: Path) -> None:
    policy = parse(allow_hosts=["a.example"])
    assert policy is not None
    pins = Pins({"a.example": ("1.1.1.1",)}, (("1.1.1.1", 443),))
    config = resolver_config(policy, pins, stats="resolver.json", resolv_conf=tmp_path / "resolv.conf")
    assert (config["mode"], config["names"], config["upstreams"]) == ("pinned", {"a.example": ["1.1.1.1"]}, [])


@pytest.mark.parametrize(("source", "mode"), [(None, "forward"), ("learn", "learn")])
def test_without_a_list_the_hosts_resolvers_are_asked_and_closed_ranges_are_named(
    tmp_path: Path, source: str | None, mode: str
) -> None:
    policy = parse(network=True, source=source, allow_private=["192.168.7.0/24"])
    assert policy is not None
    (tmp_path / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    config = resolver_config(policy, NO_PINS, stats="resolver.json", resolv_conf=tmp_path / "resolv.conf")
    assert (config["mode"], config["upstreams"], config["opened"]) == (mode, ["9.9.9.9:53"], ["192.168.7.0/24"])
    assert {"10.0.0.0/8", "127.0.0.0/8", "169.254.169.254/32"} <= set(config["closed"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1:53",)),
        ("# nameserver 1.1.1.1\nsearch lan\nnameserver\n", ("127.0.0.1:53",)),
        ("nameserver 127.0.0.53\noptions edns0\n", ("127.0.0.53:53",)),
        ("nameserver fe80::1%eth0\nnameserver ::1\nnameserver dns\n", ("[fe80::1%eth0]:53", "[::1]:53")),
        ("\n".join(f"nameserver 9.9.9.{n}" for n in range(9)), ("9.9.9.0:53", "9.9.9.1:53", "9.9.9.2:53")),
    ],
)
def test_the_hosts_resolvers_are_those_of_resolv_conf(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "resolv.conf").write_text(text)
    assert upstreams(tmp_path / "resolv.conf") == expected


def test_a_host_without_a_resolv_conf_asks_itself_as_the_c_library_does(tmp_path: Path) -> None:
    assert upstreams(tmp_path / "absent") == ("127.0.0.1:53",)
