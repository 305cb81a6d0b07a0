"""The network of one machine as its launcher is told (agent/netns/plan.go).

Every guest has the same addresses: each is alone in a namespace, so those that go on from one template do not meet.
"""

from typing import Any

from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.addresses import GATEWAY, GUEST, PREFIX, TAP
from pyro_mcp.network.pins import NO_PINS, Pins
from pyro_mcp.network.resolver import resolver_config
from pyro_mcp.network.rules import machine_ruleset
from pyro_mcp.network.uplink import NO_UPLINK, OUTER_GATEWAY, PASTA_ADDRESS, Uplink, pasta_plan, veth_plan
from pyro_mcp.paths import MachinePaths

NOBODY_ELSE = (-1, -1)
MAC_PREFIX = "0600"  # locally administered; the rest is the machine's own


def mac_of(machine_id: str) -> str:
    """The guest's hardware address, 12 hex digits: no two machines share one."""
    return MAC_PREFIX + machine_id[:8]


def connected(
    machine_id: str,
    paths: MachinePaths,
    policy: NetworkPolicy,
    pins: Pins,
    uplink: Uplink,
    *,
    gate: tuple[int, int] | None,
) -> dict[str, Any]:
    """A machine with a way out, as far as *policy* goes. *gate*: the gate's uid and gid; ``None``: the caller's."""
    ways = veth_plan(machine_id) if uplink.kind == "veth" else pasta_plan(uplink, paths.namespace)
    return {**_inside(paths, uplink, policy, pins), **_gate(*(gate or NOBODY_ELSE)), "uplink": ways}


def unconnected(paths: MachinePaths, uplink: Uplink) -> dict[str, Any]:
    """A machine with the same devices and no way out: a template is made of it."""
    nothing = NetworkPolicy(mode="allow-list")
    return {**_inside(paths, uplink, nothing, NO_PINS), **_gate(*NOBODY_ELSE), "uplink": NO_UPLINK}


def _inside(paths: MachinePaths, uplink: Uplink, policy: NetworkPolicy, pins: Pins) -> dict[str, Any]:
    closed = (*uplink.closed, OUTER_GATEWAY, PASTA_ADDRESS)
    return {
        "tap": TAP,
        "guest": GUEST,
        "gateway": GATEWAY,
        "prefix": PREFIX,
        "mtu": uplink.mtu,
        "rules": machine_ruleset(policy, pins, host=closed),
        "nft": uplink.nft,
        "directory": str(paths.network),
        "resolver": resolver_config(policy, pins, stats=paths.resolver_stats),
    }


def _gate(uid: int, gid: int) -> dict[str, int]:
    return {"gate_uid": uid, "gate_gid": gid}
