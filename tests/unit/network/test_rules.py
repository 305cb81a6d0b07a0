"""The rulesets, as text. What they do to packets is tests/guest/test_network_rules.py."""

import os
from ipaddress import AddressValueError
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.pins import NO_PINS, pin
from pyro_mcp.network.policy import parse
from pyro_mcp.network.rules import host_ruleset, machine_ruleset

GOLDEN = Path(__file__).parent / "golden"
HOST = ("198.51.100.7", "10.99.0.0/30")


def policy(**said: Any) -> NetworkPolicy:  # noqa: ANN401 - as parse
    found = parse(**said)
    assert found is not None
    return found


def rulesets() -> dict[str, str]:
    listed = policy(allow_hosts=["a.example", "db.example:5432"], allow_private=["10.1.0.0/16"])
    pins = pin(listed, {"a.example": ["1.1.1.1", "1.0.0.1"], "db.example": ["10.1.2.3"]}.__getitem__)
    return {
        "public": machine_ruleset(policy(network=True), NO_PINS, host=HOST),
        "opened": machine_ruleset(policy(allow_private=["192.168.7.0/24"]), NO_PINS, host=HOST),
        "learn": machine_ruleset(policy(source="learn"), NO_PINS, host=HOST),
        "allow-list": machine_ruleset(listed, pins, host=HOST),
        "nothing": machine_ruleset(policy(allow_hosts=["a.example"]), NO_PINS),
        "host": host_ruleset("pyro_0123456789ab", "py01234567", "10.99.0.2"),
    }


@pytest.mark.parametrize("name", ["public", "opened", "learn", "allow-list", "nothing", "host"])
def test_the_rulesets_are_the_golden_ones(name: str) -> None:
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("PYRO_UPDATE_GOLDEN"):
        path.write_text(rulesets()[name])
    assert rulesets()[name] == path.read_text()


@pytest.mark.parametrize("interface", ['py" accept', "", "py0123456789abcdef", "a b"])
def test_no_other_text_gets_into_the_hosts_rules(interface: str) -> None:
    with pytest.raises(ValueError, match="no names of ours"):
        host_ruleset("pyro_0123456789ab", interface, "10.99.0.2")
    with pytest.raises(AddressValueError):
        host_ruleset("pyro_0123456789ab", "py01234567", "10.0.0.2 accept")
