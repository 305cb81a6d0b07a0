"""The network of a machine as its users see it."""

from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.model import NetworkInfo, NetworkReport
from pyro_mcp.network.addresses import GATEWAY, GUEST, SUBNET, TAP
from pyro_mcp.network.counters import report
from pyro_mcp.network.wiring import mac_of
from pyro_mcp.paths import Paths


def report_of(paths: Paths, record: MachineRecord | None) -> NetworkReport | None:
    """What the machine was denied and what it reached so far; ``None`` when it has no network."""
    if record is None or record.network is None:
        return None
    vmm = record.running.vmm if record.running is not None else None
    return report(record.network, vmm, paths.machine(record.machine_id))


def info_of(paths: Paths, record: MachineRecord) -> NetworkInfo:
    """The addresses of the machine, and what became of its packets; or why nothing goes out."""
    about = report_of(paths, record)
    if about is None:
        return {
            "vm_id": record.machine_id,
            "network_enabled": False,
            "outbound_connectivity_expected": False,
            "reason": "the machine was made without a network",
        }
    digits = mac_of(record.machine_id)
    found: NetworkInfo = {
        "vm_id": record.machine_id,
        "network_enabled": True,
        "outbound_connectivity_expected": record.vmm_alive and not about["problem"],
        "tap_name": TAP,
        "guest_ip": GUEST,
        "gateway_ip": GATEWAY,
        "subnet_cidr": SUBNET,
        "mac_address": ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)),
        "dns_servers": [GATEWAY],
        "network": about,
    }
    if about["problem"]:
        found["reason"] = about["problem"]
    return found
