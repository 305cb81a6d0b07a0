"""Which driver runs the machines: what was asked for, or the best that works.

``auto`` takes Firecracker where KVM is usable and its programs are here or can be fetched, else QEMU with KVM, else
QEMU without. A driver that was asked for by name is taken or refused, never replaced.
"""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyro_mcp.config import Settings
from pyro_mcp.config.settings import DRIVERS
from pyro_mcp.drivers.base import Availability, Driver
from pyro_mcp.drivers.qemu import QemuDriver
from pyro_mcp.drivers.vmm_user import KVM_DEVICE, may_open_kvm
from pyro_mcp.errors import DriverUnavailable, InvalidRequest, PyroError
from pyro_mcp.host import facts
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.kvm import KvmReport, probe
from pyro_mcp.host.progress import Progress
from pyro_mcp.host.tsc import tsc_khz
from pyro_mcp.model import IsolationLevel
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.agent import AGENT

if TYPE_CHECKING:  # Firecracker's driver loads an HTTP client; where there is no KVM, no run needs it
    from pyro_mcp.drivers.firecracker import FirecrackerDriver

PROBE_SECONDS = 15.0
FETCH_SECONDS = 300.0
FETCH_FACT = "vmm_fetch"
FETCH_AGAIN_SECONDS = 3600.0  # `auto` does not try an unreachable source at every run
HARDWARE = ("kvm",)


class Candidate(NamedTuple):
    """A driver and whether it can run a guest here."""

    driver: Driver
    available: Availability


def qemu(paths: Paths) -> tuple[QemuDriver, KvmReport]:
    """The QEMU driver of this host, and the verdict on KVM it rests on."""
    kvm = probe(paths, Deadline.after(PROBE_SECONDS))
    return QemuDriver(_for_qemu(kvm), lambda: tsc_khz(paths, AGENT), functools.partial(_in_parallel, paths)), kvm


def _in_parallel(paths: Paths, program: Path) -> bool:
    from pyro_mcp.drivers.qemu.version import emulates_in_parallel

    return emulates_in_parallel(paths, program)


def _for_qemu(kvm: KvmReport) -> KvmReport:
    """The verdict for a VMM that opens the device by its path, under its own user id."""
    if not kvm.usable or may_open_kvm():
        return kvm
    return kvm._replace(
        usable=False,
        reason=f"only root may open {KVM_DEVICE}, and QEMU does not run as root",
        remedy=f"Give {KVM_DEVICE} to a group (usually kvm) that may read and write it.",
    )


def firecracker(paths: Paths) -> "FirecrackerDriver":
    """The Firecracker driver of this host."""
    from pyro_mcp.drivers.firecracker import FirecrackerDriver, confinement
    from pyro_mcp.runtime import firecracker as vmm

    kvm = probe(paths, Deadline.after(PROBE_SECONDS))
    host = functools.cache(lambda: confinement.probe(paths, AGENT))
    return FirecrackerDriver(kvm, host, lambda: vmm.find(paths))


def survey(paths: Paths) -> list[Candidate]:
    """Every driver, the preferred one first, and whether it can run a guest here; nothing is fetched."""
    drivers: list[Driver] = [firecracker(paths), qemu(paths)[0]]
    return [Candidate(driver, driver.availability()) for driver in drivers]


def choose(
    paths: Paths,
    settings: Settings,
    requested: str,
    *,
    isolation: IsolationLevel = "any",
    fetch: Progress | None = None,
) -> Driver:
    """The driver for a new machine. *requested* ``auto`` leaves the choice to the settings.

    With *fetch* Firecracker is fetched where it is all that lacks. Raises DriverUnavailable when no driver can run
    a guest here with that *isolation*, with the reason; InvalidRequest for an unknown name.
    """
    name = settings.driver if requested == "auto" else requested
    if name not in DRIVERS:
        raise InvalidRequest(f"driver must be {', '.join(DRIVERS[:-1])} or {DRIVERS[-1]}, not {name!r:.40}")
    reasons = []
    remedy = ""
    kvm = probe(paths, Deadline.after(PROBE_SECONDS))
    if name == "auto" and not kvm.usable:
        reasons.append(f"firecracker: {kvm.reason}")
        remedy = kvm.remedy
    elif name in ("auto", "firecracker"):
        candidate = _firecracker(paths, fetch, asked_for=name == "firecracker")
        if candidate.available.usable:
            return candidate.driver
        reasons.append(f"firecracker: {candidate.available.reason}")
        remedy = candidate.available.remedy
    if name in ("auto", "qemu"):
        driver, _ = qemu(paths)
        available = driver.availability()
        if available.usable and _enough(available, isolation):
            return driver
        why = available.reason if not available.usable else f"only {available.reason}"
        reasons.append(f"qemu: {why}")
        # Without a demand on isolation QEMU is the one that is easy to get.
        remedy = remedy if available.usable and remedy else available.remedy or remedy
    if isolation == "hardware":
        cause = f"no driver isolates by hardware here ({'; '.join(reasons)})"
        hint = "Use a host with usable KVM, or leave out --require-isolation hardware."
        raise DriverUnavailable(cause, remedy=f"{remedy} {hint}" if name == "firecracker" else hint)
    raise DriverUnavailable(f"no guest can run here ({'; '.join(reasons)})", remedy=remedy or None)


def by_name(paths: Paths, name: str) -> Driver:
    """The driver of a machine that exists. Raises DriverUnavailable for one this version does not have."""
    if name == "firecracker":
        return firecracker(paths)
    if name == "qemu":
        return qemu(paths)[0]
    raise DriverUnavailable(f"the machine belongs to the driver {name!r:.40}, which this pyro does not have")


def check(driver: Driver, isolation: IsolationLevel) -> None:
    """Raise DriverUnavailable unless *driver*, chosen earlier, still isolates as was asked for: hosts change."""
    available = driver.availability()
    if not _enough(available, isolation):
        raise DriverUnavailable(
            f"the machine was made for isolation by hardware, but here is only {available.reason}",
            remedy="Start it on a host with usable KVM, or delete it.",
        )


def _enough(available: Availability, isolation: IsolationLevel) -> bool:
    return isolation == "any" or available.accelerator in HARDWARE


def _firecracker(paths: Paths, fetch: Progress | None, *, asked_for: bool) -> Candidate:
    """The Firecracker driver; its programs are fetched if nothing else lacks, and *fetch* is there to be told."""
    driver = firecracker(paths)
    available = driver.availability()
    if available.usable or fetch is None or not driver.only_lacks_programs():
        return Candidate(driver, available)
    if not asked_for and (reason := _failed_lately(paths)):
        return Candidate(driver, _unavailable(reason, available.remedy))
    from pyro_mcp.runtime import firecracker as vmm

    try:
        vmm.install(paths, fetch, Deadline.after(FETCH_SECONDS))
    except PyroError as error:
        facts.remember(paths, FETCH_FACT, {"at": time.time(), "reason": error.cause})
        if asked_for:
            raise DriverUnavailable(error.cause, remedy=error.remedy, details=error.details) from error
        return Candidate(driver, _unavailable(error.cause, error.remedy))
    return Candidate(driver, driver.availability())


def _unavailable(reason: str, remedy: str) -> Availability:
    return Availability(usable=False, accelerator="kvm", reason=reason, remedy=remedy)


def _failed_lately(paths: Paths) -> str:
    """Why the last fetch failed, if that was in the last hour."""
    known = facts.recall(paths, FETCH_FACT) or {}
    at, reason = known.get("at"), known.get("reason")
    recent = isinstance(at, float) and 0 <= time.time() - at < FETCH_AGAIN_SECONDS
    return reason if recent and isinstance(reason, str) else ""
