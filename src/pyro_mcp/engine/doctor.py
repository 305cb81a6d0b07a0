"""What this host can run: examined part by part, so that one broken part never hides the others."""

import contextlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from pyro_mcp import __version__
from pyro_mcp.config import Settings, unknown_variables
from pyro_mcp.engine import choice
from pyro_mcp.engine.capacity import MIB, available_mib
from pyro_mcp.engine.networking import uplink_here
from pyro_mcp.engine.template_store import TemplateStore
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import PyroError
from pyro_mcp.host import packages
from pyro_mcp.host.files import free_bytes
from pyro_mcp.host.proc import search_path
from pyro_mcp.model import EnvironmentRecord, RunResult
from pyro_mcp.paths import PLATFORM, Paths
from pyro_mcp.runtime import build, firecracker
from pyro_mcp.runtime.agent import AGENT
from pyro_mcp.runtime.bundle import MANIFEST, embedded, named
from pyro_mcp.runtime.vmm_sources import RELEASE

TUN = Path("/dev/net/tun")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
DEEP_ANSWER = "pyro\n"


class Finding(TypedDict):
    """Something that is wrong or worth knowing, and what to do about it. *fatal*: no guest can run because of it."""

    text: str
    remedy: str
    fatal: bool


class DoctorReport(TypedDict):
    """The report of ``pyro doctor --json``."""

    platform: str
    version: str
    runtime_ok: bool
    can_run: bool
    issues: list[str]
    findings: list[Finding]
    kvm: dict[str, Any]
    networking: dict[str, Any]
    runtime: dict[str, Any]
    driver: dict[str, Any]
    host: dict[str, Any]
    missing_packages: list[str]
    install_commands: list[list[str]]
    environments: list[EnvironmentRecord]
    templates: dict[str, Any]
    deep: dict[str, Any] | None


@dataclass(slots=True)
class _Examination:
    paths: Paths
    settings: Settings
    environments: Environments
    findings: list[Finding] = field(default_factory=list)

    def find(self, text: str, remedy: str, *, fatal: bool) -> None:
        self.findings.append({"text": text, "remedy": remedy, "fatal": fatal})

    def guarded(self, examine: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One part of the report; its failure is a finding, not the end."""
        try:
            return examine()
        except PyroError as error:
            self.find(error.cause, error.remedy, fatal=True)
        except OSError as error:
            self.find(str(error), "Look at the permissions of the file.", fatal=True)
        return {}


def examine(
    paths: Paths,
    settings: Settings,
    environments: Environments,
    *,
    deep: Callable[[], RunResult] | None = None,
) -> DoctorReport:
    """Examine this host; with *deep* also boot a guest. Never raises for what it is there to find."""
    state = _Examination(paths, settings, environments)
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        state.find(f"{platform.system()} on {platform.machine()} is not supported", "Use Linux on x86_64.", fatal=True)
    host = state.guarded(lambda: _host(state))
    kvm = state.guarded(lambda: _kvm(state))
    driver = state.guarded(lambda: _driver(state))
    networking = _networking(state)
    runtime = state.guarded(lambda: _runtime(state, networking))
    missing = packages.missing(search_path())
    _packages(state, missing, runtime, driver)
    records = _environment_records(state)
    if runtime:
        runtime["environments"] = records
    for line in unknown_variables():
        state.find(line, "Correct or unset the variable.", fatal=False)
    deep_result = _deep(state, deep) if deep is not None else None
    can_run = not any(finding["fatal"] for finding in state.findings)
    return {
        "platform": PLATFORM,
        "version": __version__,
        "runtime_ok": can_run,
        "can_run": can_run,
        "issues": [finding["text"] for finding in state.findings],
        "findings": state.findings,
        "kvm": kvm
        or {"exists": False, "readable": False, "writable": False, "usable": False, "reason": "not examined"},
        "networking": networking,
        "runtime": runtime,
        "driver": driver,
        "host": host,
        "missing_packages": [need.package for need in missing],
        "install_commands": packages.install_commands(missing),
        "environments": records,  # in `runtime`, too, where the 2.3.0 line has them
        "templates": state.guarded(lambda: _templates(state)),
        "deep": deep_result,
    }


def _host(state: _Examination) -> dict[str, Any]:
    free = free_bytes(state.paths.state) // MIB
    cache_free = free_bytes(state.paths.environments) // MIB
    for place, amount in ((state.paths.state, free), (state.paths.environments, cache_free)):
        if amount < state.settings.min_free_mib:
            state.find(f"only {amount} MiB are free for {place}", "Free some disk space.", fatal=True)
        nearest = next((path for path in (place, *place.parents) if path.exists()), place)
        if not os.access(nearest, os.W_OK | os.X_OK):
            state.find(f"{nearest} cannot be written", f"Give yourself access to {nearest}.", fatal=True)
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count() or 1,
        "memory_available_mib": available_mib(),
        "state_dir": str(state.paths.state),
        "state_free_mib": free,
        "cache_dir": str(state.paths.environments),
        "cache_free_mib": cache_free,
        "uid": os.geteuid(),
    }


def _kvm(state: _Examination) -> dict[str, Any]:
    _, kvm = choice.qemu(state.paths)
    return {
        "exists": kvm.exists,
        "readable": kvm.readable,
        "writable": kvm.writable,
        "usable": kvm.usable,
        "reason": kvm.reason,
        "remedy": kvm.remedy,
    }


def _driver(state: _Examination) -> dict[str, Any]:
    driver = choice.choose(state.paths, state.settings, "auto")
    available = driver.availability()
    return {
        "name": driver.capabilities.name,
        "execution_mode": driver.capabilities.execution_mode,
        "accelerator": available.accelerator,
        "reason": available.reason,
        "isolation": driver.isolation(),
        "candidates": [_candidate(found) for found in choice.survey(state.paths)],
    }


def _candidate(found: choice.Candidate) -> dict[str, Any]:
    """One driver, usable or not, and why."""
    available = found.available
    return {
        "name": found.driver.capabilities.name,
        "usable": available.usable,
        "accelerator": available.accelerator,
        "hardware_isolation": available.usable and available.accelerator in choice.HARDWARE,
        "reason": available.reason,
        "remedy": available.remedy,
        "sandbox": found.driver.isolation()["sandbox"] if available.usable else [],
    }


def _runtime(state: _Examination, networking: dict[str, Any]) -> dict[str, Any]:
    report = build.inspect(state.paths)
    for problem in report.problems:
        state.find(problem, "It is rebuilt at the next run.", fatal=False)
    vmm = _firecracker(state)
    return {
        **vmm,
        **_bundle(report),
        "state": report.state,
        "guest_agent_path": str(AGENT) if AGENT.exists() else None,
        "artifacts_dir": str(report.directory) if report.directory else None,
        "artifacts_present": report.state in ("ready", "stale"),
        "component_versions": {
            "base_distro": f"{CATALOG[0].distribution} {CATALOG[0].distribution_version}",
            "firecracker": vmm["firecracker_version"],
            "jailer": vmm["firecracker_version"],
            "kernel": report.kernel_version,
            "kernel_package": report.kernel_package,
            "guest_agent": __version__,
        },
        "catalog_version": __version__,
        "cache_dir": str(state.paths.environments),
        "capabilities": {
            "supports_vm_boot": True,
            "supports_guest_exec": True,
            "supports_guest_network": networking["uplink"] is not None,
            "reason": networking["reason"] or None,
        },
    }


def _bundle(report: build.RuntimeReport) -> dict[str, Any]:
    """The bundle that the user named, or that is in this package; else what was built here."""
    bundle = None
    with contextlib.suppress(PyroError):  # a broken one is told with the VMM
        bundle = named() or embedded()
    if bundle is None:
        built = report.directory
        manifest = str(built / MANIFEST) if built else None
        root = str(built) if built else None
        return {"bundle_root": root, "manifest_path": manifest, "notice_path": None, "bundle_version": __version__}
    return {
        "bundle_root": str(bundle.root),
        "manifest_path": str(bundle.root / PLATFORM / MANIFEST),
        "notice_path": str(bundle.notice),
        "bundle_version": bundle.manifest.get("bundle_version"),
    }


def _firecracker(state: _Examination) -> dict[str, Any]:
    """Firecracker's programs; what is wrong with them is a finding, and not fatal: QEMU may do."""
    found: firecracker.Vmm | None = None
    try:
        found = firecracker.find(state.paths)
    except PyroError as error:
        state.find(error.cause, error.remedy, fatal=False)
    for warning in found.warnings if found else ():
        state.find(warning, f"Run `pyro runtime install` where {RELEASE.location} can be reached.", fatal=False)
    return {
        "firecracker_version": found.capabilities.text if found else None,
        "firecracker_bin": str(found.firecracker) if found else None,
        "jailer_bin": str(found.jailer) if found else None,
        "firecracker_source": found.source if found else None,
    }


def _packages(
    state: _Examination,
    missing: list[packages.Requirement],
    runtime: dict[str, Any],
    driver: dict[str, Any],
) -> None:
    """A missing package is fatal when no guest can run without it: what only builds matters until things are built."""
    built = runtime.get("state") == "ready"
    for need in missing:
        qemu_only = need.program == "qemu-system-x86_64"
        needed_always = need.program == "mke2fs" or (qemu_only and driver.get("name") != "firecracker")
        state.find(
            f"{need.program} is not installed; it {need.purpose}",
            f"Run `pyro setup`, or install the package {need.package}.",
            fatal=needed_always or not (built or qemu_only or need.network),
        )


def _environment_records(state: _Examination) -> list[EnvironmentRecord]:
    try:
        return state.environments.records()
    except PyroError as error:
        state.find(error.cause, error.remedy, fatal=True)
        return []


def _templates(state: _Examination) -> dict[str, Any]:
    records = TemplateStore(state.paths).records()
    return {
        "enabled": not state.settings.no_templates,
        "count": len(records),
        "size_mib": sum(record["size_mib"] for record in records),
        "max_mib": state.settings.templates_max_mib,
        "directory": str(state.paths.templates),
    }


def _networking(state: _Examination) -> dict[str, Any]:
    """*uplink*: the way out that a guest would have, or ``None`` and a *reason*. Most guests need none: not fatal."""

    def which(name: str) -> str | None:
        return shutil.which(name, path=search_path())

    try:
        forwarding = FORWARDING.read_text().strip() == "1"
    except OSError:
        forwarding = False
    uplink, reason = None, ""
    try:
        uplink = uplink_here(state.paths).kind
    except PyroError as error:
        reason = error.cause
        state.find(f"guests cannot have a network: {error.cause}", error.remedy, fatal=False)
    return {
        "enabled_by_default": os.environ.get("PYRO_VM_ENABLE_NETWORK") == "1",
        "tun_available": TUN.exists(),
        "ip_forward_enabled": forwarding,
        "ip_binary": which("ip"),
        "nft_binary": which("nft"),
        "iptables_binary": which("iptables"),
        "pasta_binary": which("pasta"),
        "uplink": uplink,
        "reason": reason,
    }


def _deep(state: _Examination, deep: Callable[[], RunResult]) -> dict[str, Any]:
    """Boot a guest; what came of it."""
    try:
        result = deep()
    except PyroError as error:
        state.find(f"a test guest failed: {error.cause}", error.remedy, fatal=True)
        return error.as_dict()
    right = result["exit_code"] == 0 and result["stdout"] == DEEP_ANSWER
    if not right:
        state.find("a test guest gave a wrong answer", "Look at the result under `deep`.", fatal=True)
    return {"ok": right, **result}
