"""The network of a machine: decided when it starts, from its policy and from what this host allows then.

The rules are made anew for every start, so nothing that is kept of a machine (a template, a record, a disk) can get
around its policy. A template is made of a machine with the same devices and no way out.
"""

import os
from typing import TYPE_CHECKING

from pyro_mcp.config import Settings
from pyro_mcp.drivers.base import Launch, LaunchNetwork
from pyro_mcp.drivers.vmm_user import gate_identity
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.host.files import private_directory, remove_tree
from pyro_mcp.paths import MachinePaths, Paths

if TYPE_CHECKING:  # imported where they are used: a run without a network does not wait for them
    from pyro_mcp.guest.identity import Nic
    from pyro_mcp.network.uplink import Uplink


def uplink_here(paths: Paths) -> "Uplink":
    """The way out that this host allows; raises NetworkUnavailable."""
    from pyro_mcp.network.uplink import find_uplink

    return find_uplink(namespaces=_namespaces(paths))


def _namespaces(paths: Paths) -> bool:
    """Whether this user may have a user namespace; root needs none."""
    if os.geteuid() == 0:
        return True
    from pyro_mcp.drivers.firecracker import confinement
    from pyro_mcp.runtime.agent import AGENT

    return confinement.probe(paths, AGENT).namespaces


def check_network(paths: Paths, settings: Settings) -> None:
    """Raise NetworkUnavailable or InvalidRequest when no machine can have a network here as *settings* want it."""
    from pyro_mcp.network.authorities import read_authorities

    uplink_here(paths)
    read_authorities(settings.ca_file)


def machine_network(
    record: MachineRecord, files: MachinePaths, uplink: "Uplink | None", settings: Settings
) -> LaunchNetwork | None:
    """The network that the policy of *record* allows; ``None`` without one.

    Raises NetworkUnavailable or InvalidRequest for a name of its allow-list, and InvalidRequest for the settings.
    """
    if record.network is None or uplink is None:
        return None
    from pyro_mcp.network.authorities import read_authorities
    from pyro_mcp.network.pins import pin
    from pyro_mcp.network.wiring import connected, mac_of

    gate = gate_identity(record.machine_id)
    plan = connected(
        record.machine_id,
        files,
        record.network,
        pin(record.network),
        uplink,
        gate=(gate.uid, gate.gid) if gate else None,
    )
    return LaunchNetwork(plan, mac_of(record.machine_id), read_authorities(settings.ca_file))


def for_template(launch: Launch, uplink: "Uplink | None") -> Launch:
    """*launch* of a machine that becomes a template: no way out."""
    if uplink is None:
        return launch
    from pyro_mcp.network.wiring import mac_of, unconnected

    plan = unconnected(launch.paths, uplink)
    return launch._replace(network=LaunchNetwork(plan, mac_of(launch.machine_id)))


def make_room(launch: Launch) -> None:
    """The directory of the gate that *launch* will have; what an earlier start left in it is gone."""
    if launch.network is not None:
        remove_tree(launch.paths.network)
        private_directory(launch.paths.network)


def nic_of(launch: Launch) -> "Nic | None":
    """What the guest is told about its network device."""
    network = launch.network
    if network is None:
        return None
    from pyro_mcp.guest.identity import Nic

    plan = network.plan
    return Nic(
        mac=network.mac,
        address=plan["guest"],
        prefix=plan["prefix"],
        gateway=plan["gateway"],
        resolver=plan["gateway"],
        mtu=plan["mtu"],
        authorities=network.authorities,
    )
