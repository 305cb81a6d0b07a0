"""What an allow-list stands for once its names are resolved."""

import pytest

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.pins import Lookup, pin, resolved
from pyro_mcp.network.policy import parse


def policy(*hosts: str, private: tuple[str, ...] = ()) -> NetworkPolicy:
    found = parse(allow_hosts=hosts, allow_private=private)
    assert found is not None
    return found


def always(*addresses: str) -> Lookup:
    return {"a.example": addresses}.__getitem__


def test_every_address_of_a_name_is_pinned_with_every_port_of_it() -> None:
    pins = pin(policy("a.example", "a.example:22", "93.184.216.34:8443"), always("1.1.1.1", "1.0.0.1"))
    assert pins.names == {"a.example": ("1.1.1.1", "1.0.0.1")}
    assert set(pins.endpoints) == {
        *((address, port) for address in ("1.1.1.1", "1.0.0.1") for port in (80, 443, 22)),
        ("93.184.216.34", 8443),
    }


def test_a_name_is_asked_for_once_however_many_ports_it_has() -> None:
    asked: list[str] = []

    def lookup(name: str) -> list[str]:
        asked.append(name)
        return ["1.1.1.1"]

    pin(policy("a.example:1", "a.example:2"), lookup)
    assert asked == ["a.example"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.1.1", "224.0.0.1", "0.1.2.3", "192.0.2.1", "255.255.255.255"]
)
def test_a_name_that_leads_to_no_internet_is_refused_whatever_is_opened(address: str) -> None:
    with pytest.raises(InvalidRequest, match="no public address"):
        pin(policy("a.example", private=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")), always(address))


@pytest.mark.parametrize("address", ["10.1.2.3", "172.20.0.1", "192.168.7.5", "100.64.0.1"])
def test_a_private_address_must_be_opened(address: str) -> None:
    with pytest.raises(InvalidRequest, match="no public address") as caught:
        pin(policy("a.example"), always("1.1.1.1", address))
    assert f"--allow-private {address}/32" in caught.value.remedy
    opened = policy("a.example:5432", private=(f"{address}/32",))
    assert pin(opened, always(address)).endpoints == ((address, 5432),)


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "168.63.129.16"])
def test_metadata_services_are_never_pinned(address: str) -> None:
    with pytest.raises(InvalidRequest, match="metadata"):
        pin(policy(address, private=("100.64.0.0/10",)))


def test_this_hosts_own_resolver_is_asked() -> None:
    assert resolved("localhost") == ["127.0.0.1"]
