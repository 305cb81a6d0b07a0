"""The names of an allow-list, resolved once when a machine starts. What they are then, they are for all of its life."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from pyro_mcp.errors import InvalidRequest, NetworkUnavailable, ProgramFailed
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.policy import address_in, host_and_ports
from pyro_mcp.network.ranges import OPENABLE, class_of

LOOKUP_SECONDS = 10.0
ADDRESSES_MOST = 32
Lookup = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Pins:
    """What an allow-list stands for. *names*: what the guest's resolver answers. *endpoints*: (address, port)."""

    names: dict[str, tuple[str, ...]]
    endpoints: tuple[tuple[str, int], ...]


NO_PINS = Pins({}, ())


def pin(policy: NetworkPolicy, lookup: Lookup | None = None) -> Pins:
    """Resolve the hosts of *policy*, on this host, with *lookup* (default: as every program here does).

    Raises NetworkUnavailable for a name without an IPv4 address, InvalidRequest for one that leads where the policy
    does not: a private address opens only with ``--allow-private``, and the others that are no internet never do.
    """
    find = lookup or resolved
    opened = [IPv4Network(text) for text in policy.private]
    names: dict[str, tuple[str, ...]] = {}
    endpoints: dict[tuple[str, int], None] = {}
    for entry in policy.hosts:
        host, ports = host_and_ports(entry)
        literal = address_in(host)
        if literal is None and host not in names:
            names[host] = tuple(find(host))[:ADDRESSES_MOST]
        found = (host,) if literal is not None else names[host]
        for text in found:
            _require_open(host, IPv4Address(text), opened)
            endpoints.update({(text, port): None for port in ports})
    return Pins(names, tuple(endpoints))


def resolved(name: str) -> list[str]:
    """The IPv4 addresses of *name* as this host resolves it; raises NetworkUnavailable when there are none."""
    try:
        said = proc.run(["getent", "ahostsv4", name], Deadline.after(LOOKUP_SECONDS), check=False).stdout
    except ProgramFailed:  # nobody answers
        said = b""
    found: dict[str, None] = {}
    for line in said.decode(errors="replace").splitlines():
        address = line.partition(" ")[0]
        try:
            found[str(IPv4Address(address))] = None
        except AddressValueError:
            continue
    if not found:
        raise NetworkUnavailable(
            f"the allowed host {name} has no IPv4 address that this host can find",
            remedy="Check the name, and this host's own resolver: getent ahostsv4 NAME",
        )
    return list(found)


def _require_open(host: str, address: IPv4Address, opened: Sequence[IPv4Network]) -> None:
    kind = class_of(address)
    if kind is None or (kind != "metadata" and any(address in network for network in opened)):
        return
    openable = kind != "metadata" and any(address in network for network in OPENABLE)
    raise InvalidRequest(
        f"the allowed host {host} is {address}, which is no public address ({kind.replace('_', '-')})",
        remedy=f"If that is meant, open it: --allow-private {address}/32" if openable else "It cannot be opened.",
    )
