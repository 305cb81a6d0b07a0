"""What a machine was denied and what it reached, read from its namespace and from its resolver.

The numbers are the kernel's. The names are the guest's choice: they are bounded, and host names by their form.
"""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pyro_mcp.errors import HostFault
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import is_held
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import NetworkPolicy, NetworkReport
from pyro_mcp.network.policy import HOST_NAME, HOST_NAME_MOST, HOSTS_MOST
from pyro_mcp.network.rules import DENIALS, TABLE
from pyro_mcp.paths import MachinePaths

READ_SECONDS = 5.0
ENTER = Path(__file__).with_name("enter.py")
STATS_BYTES_MOST = 1 << 20
STATS_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
NAMES_MOST = 64
PREFIX = "denied_"
GATE_LOST = (
    "the process that kept the machine's way out has ended: no connection works and no name is answered;"
    " start the machine anew"
)


def report(policy: NetworkPolicy, vmm: ProcessId | None, files: MachinePaths) -> NetworkReport:
    """The network of a machine whose VMM is *vmm*, as it is now; without its counts when they cannot be read."""
    alive = vmm is not None and vmm.alive
    lost = alive and is_held(files.gate_lock) is False
    listing = _table(vmm) if vmm is not None and alive else None
    asked = _stats(files.resolver_stats)
    refused = asked.get("refused")
    denied = None if listing is None else denials(listing)
    if denied is not None and isinstance(refused, int) and refused > 0:
        denied["name"] = refused
    return {
        "policy": policy.mode,
        "allow_hosts": list(policy.hosts),
        "allow_private": list(policy.private),
        "problem": GATE_LOST if lost else "",
        "denied": denied,
        "refused_names": _names(asked.get("refused_names"))[:NAMES_MOST],
        "learned": None if policy.mode != "learn" or listing is None else learned(listing, asked),
    }


def denials(listing: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The packets that were denied, by class; without those of which there was none."""
    counts = {item["counter"]["name"]: int(item["counter"]["packets"]) for item in listing if "counter" in item}
    return {kind: counts[f"{PREFIX}{kind}"] for kind in DENIALS if counts.get(f"{PREFIX}{kind}")}


def learned(listing: Iterable[Mapping[str, Any]], asked: Mapping[str, Any]) -> list[str]:
    """The allow-list that would have been enough: ``HOST:PORT``, by name where the guest asked for one."""
    names: dict[str, list[str]] = {}
    known = asked.get("names")
    for name, addresses in known.items() if isinstance(known, dict) else ():
        for address in addresses if isinstance(addresses, list) and _names([name]) else ():
            names.setdefault(str(address), []).append(name)
    reached = [item["set"].get("elem", []) for item in listing if item.get("set", {}).get("name") == "reached"]
    found = set()
    for element in reached[0] if reached else []:
        address, _, port = _concatenated(element)
        found |= {f"{host}:{port}" for host in names.get(address, [address])}
    return sorted(found)[:HOSTS_MOST]


def _concatenated(element: Mapping[str, Any]) -> tuple[str, str, int]:
    """Address, protocol and port of an element; nft puts it into ``elem`` when it says more about it."""
    value = element.get("elem", {}).get("val", element)
    address, protocol, port = value["concat"]
    return str(address), str(protocol), int(port)


def _table(vmm: ProcessId) -> list[dict[str, Any]] | None:
    """The ruleset of the namespace *vmm* is in; ``None`` when it cannot be read."""
    if os.geteuid() == 0:
        enter = ["nsenter", f"--net=/proc/{vmm.pid}/ns/net"]
    else:
        enter = [sys.executable, "-I", "-S", str(ENTER), str(vmm.pid)]
    try:
        said = proc.run([*enter, "nft", "-j", "list", "table", "inet", TABLE], Deadline.after(READ_SECONDS)).stdout
        found: list[dict[str, Any]] = json.loads(said)["nftables"]
    except (HostFault, ValueError, KeyError):  # the machine has just ended, for instance
        return None
    return found


def _stats(path: Path) -> dict[str, Any]:
    """What the resolver counted; empty before its first word.

    The file is the gate's, whom a guest might have taken over: no link is followed, and no pipe is waited for.
    """
    try:
        with os.fdopen(os.open(path, STATS_FLAGS), "rb") as file:
            data = file.read(STATS_BYTES_MOST)
        found = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(values: object) -> list[str]:
    """Those of *values* that are host names."""
    if not isinstance(values, list):
        return []
    return [
        name for name in values if isinstance(name, str) and len(name) <= HOST_NAME_MOST and HOST_NAME.fullmatch(name)
    ]
