"""What the engine and the SDK see of environments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.bootstrap import DebianBootstrap
from pyro_mcp.environments.cache import Cache
from pyro_mcp.environments.catalog import CATALOG, CATALOG_VERSION, COMPATIBILITY, CatalogEntry, lookup
from pyro_mcp.environments.prune import prune
from pyro_mcp.environments.record import RECORD_NAME, InstallRecord
from pyro_mcp.environments.source import Source, make_from_first
from pyro_mcp.errors import EnvironmentFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import EnvironmentRecord, PrunedEnvironments
from pyro_mcp.paths import PLATFORM, Paths


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed environment.

    *rootfs* is the read-only squashfs image, *digest* its SHA-256 in hex (no prefix), *source* where it came from
    (for instance ``bootstrap:debian/bookworm``), *packages* what is in it, with versions, *record* what surfaces show.
    """

    name: str
    version: str
    rootfs: Path
    digest: str
    source: str
    packages: dict[str, str]
    record: EnvironmentRecord


class Environments:
    """The environments of one user's cache. Thread-safe; every method may run in several processes at once.

    *sources* are asked in order for an environment that is not installed; by default the Debian bootstrap alone.
    """

    def __init__(self, paths: Paths, settings: Settings, *, sources: Sequence[Source] | None = None) -> None:
        self._paths = paths
        self._cache = Cache(paths)
        self._sources: Sequence[Source] = (DebianBootstrap(settings),) if sources is None else sources

    def records(self) -> list[EnvironmentRecord]:
        """All environments of the catalog, sorted by name, each with whether it is installed."""
        return [self._record(entry, self._cache.find(entry)) for entry in sorted(CATALOG, key=lambda entry: entry.name)]

    def inspect(self, name: str) -> EnvironmentRecord:
        """One environment. Raises UnknownEnvironment."""
        entry = lookup(name)
        return self._record(entry, self._cache.find(entry))

    def pull(self, name: str, *, progress: Progress, deadline: Deadline) -> Installed:
        """Make sure *name* is installed and its image matches its digest (it is hashed); install it otherwise.

        Told to *progress*: the phases ``install`` (first) and ``ready`` (last), between them ``update``, ``download``,
        ``bootstrap``, ``pack`` (with bytes) and ``verify``, each with ``environment=name``. A second process that pulls
        the same waits for the first and shares its work. Raises UnknownEnvironment, EnvironmentFault, NoSpace,
        StorageFault, ProgramMissing, ProgramFailed, Busy.
        """
        return self._pull(lookup(name), progress, deadline)

    def ensure(self, name: str, *, progress: Progress, deadline: Deadline) -> Installed:
        """The installed environment *name*: at once when it is there (no progress, hash or lock), else by ``pull``."""
        entry = lookup(name)
        found = self._cache.find(entry)
        return self._pull(entry, progress, deadline) if found is None else self._installed(entry, found)

    def verify(self, name: str) -> Installed:
        """Hash the installed image. Raises EnvironmentFault when it is not installed or differs from its digest."""
        entry = lookup(name)
        found = self._cache.load(entry)
        remedy = f"Run `pyro env pull {entry.name}`."
        if found is None:
            raise EnvironmentFault(f"{entry.name} is not installed", remedy=remedy)
        if not self._cache.matches(found):
            image = self._cache.image(found)
            raise EnvironmentFault(f"the image of {entry.name} is missing or damaged: {image}", remedy=remedy)
        return self._installed(entry, found)

    def prune(self) -> PrunedEnvironments:
        """Remove what no environment of the catalog needs; never what a running pull owns.

        A machine that runs from a removed image is not hurt: its VMM has the file open.
        """
        return prune(self._paths, self._cache, CATALOG)

    def _pull(self, entry: CatalogEntry, progress: Progress, deadline: Deadline) -> Installed:
        waited = False

        def waiting() -> None:
            nonlocal waited
            waited = True
            progress.note(f"another process is installing {entry.name}")

        progress.phase("install", environment=entry.name)
        with self._cache.installing(entry, deadline, waiting):
            # Who waited need not hash what the other has just hashed.
            found = self._cache.find(entry) if waited else self._cache.recheck(entry)
            if found is None:
                found = self._install(entry, progress, deadline)
        progress.phase("ready", environment=entry.name)
        return self._installed(entry, found)

    def _install(self, entry: CatalogEntry, progress: Progress, deadline: Deadline) -> InstallRecord:
        with self._cache.partial(entry) as work:
            made = make_from_first(self._sources, entry, work, progress, deadline)
            progress.phase("verify", environment=entry.name)
            return self._cache.publish(entry, made, work, deadline)

    def _installed(self, entry: CatalogEntry, found: InstallRecord) -> Installed:
        return Installed(
            name=entry.name,
            version=entry.version,
            rootfs=self._cache.image(found),
            digest=found.source_digest,
            source=found.source,
            packages=found.packages,
            record=self._record(entry, found),
        )

    def _record(self, entry: CatalogEntry, found: InstallRecord | None) -> EnvironmentRecord:
        directory = self._cache.directory(entry)
        record = EnvironmentRecord(
            name=entry.name,
            version=entry.version,
            description=entry.description,
            default_packages=list(entry.packages),
            distribution=entry.distribution,
            distribution_version=entry.distribution_version,
            platform=PLATFORM,
            oci_registry=entry.oci.registry,
            oci_repository=entry.oci.repository,
            oci_reference=entry.oci.reference,
            source_digest=None if found is None else found.source_digest,
            compatibility=COMPATIBILITY,
            catalog_version=CATALOG_VERSION,
            installed=found is not None,
            cache_dir=str(self._paths.environments),
            install_dir=str(directory),
        )
        if found is not None:
            record["install_manifest"] = str(directory / RECORD_NAME)
        return record
