"""Which driver runs the machines: what was asked for, or the best that works."""

from pyro_mcp.config import Settings
from pyro_mcp.drivers.base import Driver
from pyro_mcp.drivers.qemu import QemuDriver
from pyro_mcp.errors import DriverUnavailable, InvalidRequest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.kvm import KvmReport, probe
from pyro_mcp.host.tsc import tsc_khz
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.agent import AGENT

PROBE_SECONDS = 5.0


def qemu(paths: Paths) -> tuple[QemuDriver, KvmReport]:
    """The QEMU driver of this host, and the verdict on KVM it rests on."""
    kvm = probe(paths, Deadline.after(PROBE_SECONDS))
    return QemuDriver(kvm, lambda: tsc_khz(paths, AGENT)), kvm


def choose(paths: Paths, settings: Settings, requested: str) -> Driver:
    """The driver for a new machine. *requested* ``auto`` leaves the choice to the settings.

    Raises DriverUnavailable when it cannot run a guest here, with the reason; InvalidRequest for an unknown name.
    """
    name = settings.driver if requested == "auto" else requested
    if name == "firecracker":
        raise DriverUnavailable(
            "this version of pyro has no Firecracker driver yet",
            remedy="Use --driver qemu, or --driver auto.",
        )
    if name not in ("auto", "qemu"):
        raise InvalidRequest(f"driver must be auto, firecracker or qemu, not {name!r:.40}")
    driver, _ = qemu(paths)
    available = driver.availability()
    if not available.usable:
        raise DriverUnavailable(f"no guest can run here: {available.reason}", remedy=available.remedy)
    return driver


def by_name(paths: Paths, name: str) -> Driver:
    """The driver of a machine that exists. Raises DriverUnavailable for one this version does not have."""
    if name != "qemu":
        raise DriverUnavailable(f"the machine belongs to the driver {name!r:.40}, which this pyro does not have")
    return qemu(paths)[0]
