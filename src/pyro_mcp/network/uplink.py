"""The way out of a machine's network namespace that this host allows, and what it is made of.

``veth``
    root, on a host that forwards: a pair of devices, and a table of the host's nftables that masquerades.
``pasta``
    anybody: a program that makes the guest's connections its own (package passt). Also root's, where a firewall that
    is not ours would not forward.
"""

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyro_mcp.errors import HostFault, NetworkUnavailable
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.network import default_mtu, host_addresses, routed_addresses
from pyro_mcp.network.addresses import UPLINK
from pyro_mcp.network.rules import host_ruleset

Kind = Literal["veth", "pasta"]
NFT = "nft"
PASTA = "pasta"
TUN = Path("/dev/net/tun")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
OLD_TABLES = Path("/proc/net/ip_tables_names")
PROBE_SECONDS = 10.0
# RFC 2544's range for measurements: nobody's network, and closed to guests like all that is reserved.
POOL = "198.18.{}.{}"
OUTER_GATEWAY = "198.18.0.1"
PASTA_ADDRESS = "198.18.0.2"
PASTA_NETMASK = "255.255.255.252"
CANDIDATES = 4  # the first that is free is taken, by the kernel's word
MTU_MOST = 1500
# Of a rule of nftables: what it does besides, and what lets nothing through.
REMARKS = {"counter", "log"}
CLOSING = {"drop", "reject"}
NO_UPLINK: dict[str, Any] = {"kind": "none", "device": "", "gateway": "", "candidates": [], "argv": []}


@dataclass(frozen=True, slots=True)
class Uplink:
    """What a machine's way out will be. *mtu* in bytes; *closed*: the host's own addresses."""

    kind: Kind
    nft: str
    pasta: str
    mtu: int
    closed: tuple[str, ...]


def find_uplink(*, namespaces: bool) -> Uplink:
    """The best way out here; *namespaces*: whether this user may make user namespaces (root needs none).

    Raises NetworkUnavailable naming what is missing and what provides it.
    """
    root = os.geteuid() == 0
    nft = shutil.which(NFT, path=proc.search_path())
    if nft is None:
        raise _missing("nft is not installed", "nftables")
    _check_tun()
    if not root and not namespaces:
        raise NetworkUnavailable(
            "this host denies user namespaces to normal users, and a network without root needs them",
            remedy="Allow them (sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0), or run pyro as root.",
        )
    pasta = shutil.which(PASTA, path=proc.search_path())
    obstacle = _veth_obstacle(nft) if root else "only root can make one"
    if obstacle and pasta is None:
        raise _missing(f"pasta is not installed, and a pair of devices is no way out here: {obstacle}", "passt")
    return Uplink("pasta" if obstacle else "veth", nft, pasta or "", min(default_mtu(), MTU_MOST), host_addresses())


def _missing(cause: str, package: str) -> NetworkUnavailable:
    return NetworkUnavailable(cause, remedy=f"Run `pyro setup`, or install the package {package}.")


def _check_tun() -> None:
    if not TUN.exists():
        raise NetworkUnavailable(f"{TUN} is not there", remedy="Load the module: sudo modprobe tun")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise NetworkUnavailable(f"{TUN} is not this user's to open", remedy=f"Open it to users: sudo chmod 0666 {TUN}")


def _veth_obstacle(nft: str) -> str:
    """Why this host would not carry what comes from a device of ours; empty when it would."""
    try:
        if IP_FORWARD.read_text().strip() != "1":
            return "the host does not forward (net.ipv4.ip_forward=0)"
        if OLD_TABLES.exists() and OLD_TABLES.read_text().strip():
            return "an old iptables firewall may be in the way"
        chains = [item["chain"] for item in _listed(nft, "chains") if "chain" in item]
        for chain in chains:
            if chain.get("hook") == "forward" and _closes(nft, chain):
                return f"the table {chain['table']} does not forward what it does not know"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, HostFault) as error:
        return f"its firewall cannot be read ({error})"
    return ""


def _closes(nft: str, chain: dict[str, Any]) -> bool:
    """Whether a chain that forwards refuses what no rule lets through: by its policy, or by a last rule of any kind."""
    if chain.get("policy") == "drop":
        return True
    listed = _listed(nft, "chain", chain["family"], chain["table"], chain["name"])
    for rule in (item["rule"] for item in listed if "rule" in item):
        verdicts = [word for part in rule["expr"] for word in part if word not in REMARKS]
        if verdicts and set(verdicts) <= CLOSING:  # and no condition
            return True
    return False


def _listed(nft: str, *what: str) -> list[dict[str, Any]]:
    """What ``nft list`` says of the host, as libnftables-json(5) has it."""
    said = json.loads(proc.run([nft, "-j", "list", *what], Deadline.after(PROBE_SECONDS)).stdout)
    found: list[dict[str, Any]] = said["nftables"]
    return found


def veth_plan(machine_id: str) -> dict[str, Any]:
    """A pair of devices for *machine_id*, with addresses that lead nowhere yet (agent/gate/plan.go)."""
    device, table = f"py{machine_id}", f"pyro_{machine_id}"
    return {
        "kind": "veth",
        "device": device,
        "gateway": OUTER_GATEWAY,
        "candidates": [
            {"address": address, "host_rules": one_line(host_ruleset(table, device, address))}
            for address in _free_addresses()
        ],
        "argv": [],
    }


def pasta_plan(uplink: Uplink, namespace: Path) -> dict[str, Any]:
    """A pasta for the namespace at *namespace*: outwards only, and not to the host's loopback."""
    argv = [uplink.pasta, "--foreground", "--stderr", "--quiet", "--ipv4-only", "--config-net"]
    argv += ["--ns-ifname", UPLINK, "--mtu", str(uplink.mtu)]
    argv += ["--address", PASTA_ADDRESS, "--netmask", PASTA_NETMASK, "--gateway", OUTER_GATEWAY, "--no-map-gw"]
    argv += ["--no-dhcp", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]
    if os.geteuid() == 0:
        argv += ["--runas", "0:0"]  # it could not enter the namespace as another; its own sandbox holds all the same
    argv += ["--netns-only", "--netns", str(namespace)]
    return {"kind": "pasta", "device": "", "gateway": "", "candidates": [], "argv": argv}


def one_line(ruleset: str) -> str:
    """*ruleset* as ``nft -i`` takes it, which reads a line at a time."""
    lines = filter(None, map(str.strip, ruleset.splitlines()))
    return " ".join(line if line.endswith(("{", ";")) else f"{line};" for line in lines)


def _free_addresses() -> list[str]:
    taken = routed_addresses()
    found: dict[str, None] = {}
    while len(found) < CANDIDATES:
        address = POOL.format(1 + secrets.randbelow(254), 1 + secrets.randbelow(254))
        if address not in taken:
            found[address] = None
    return list(found)
