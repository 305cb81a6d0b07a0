"""What the engine and the SDK see of environments."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_mcp.config import Settings
from pyro_mcp.environments.cache import Cache
from pyro_mcp.environments.catalog import CATALOG, CATALOG_VERSION, COMPATIBILITY, CatalogEntry, lookup
from pyro_mcp.environments.installed import Installed, Kernel
from pyro_mcp.environments.oci.names import image_entry, import_entry, lock_of, recorded_entry, reference_of
from pyro_mcp.environments.oci.reference import names_a_registry
from pyro_mcp.environments.record import RECORD_NAME, InstallRecord
from pyro_mcp.errors import EnvironmentFault, InvalidRequest, UnknownEnvironment
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import CommandSpec, EnvironmentRecord, PrunedEnvironments
from pyro_mcp.paths import PLATFORM, Paths

if TYPE_CHECKING:
    from pyro_mcp.environments.source import Source


class Environments:
    """The environments of one user's cache. Thread-safe; every method may run in several processes at once.

    A name is one of the catalog, one that was imported, or that of an image with its registry. *sources* are asked in
    order for what is not installed; by default those of the settings.
    """

    def __init__(self, paths: Paths, settings: Settings, *, sources: "Sequence[Source] | None" = None) -> None:
        self._paths = paths
        self._cache = Cache(paths)
        self._settings = settings
        self._sources = sources
        self._lock = lock_of(paths, settings)

    def records(self) -> list[EnvironmentRecord]:
        """All environments of the catalog, then the images that are installed, each sorted by name."""
        return [self._record(entry, self._find(entry)) for entry in self._entries()]

    def recorded(self) -> list[str]:
        """The names of all that was installed, also of those whose image has gone or changed since."""
        return [entry.name for entry in self._entries() if self._cache.load(entry) is not None]

    def inspect(self, name: str) -> EnvironmentRecord:
        """One environment. Raises UnknownEnvironment."""
        entry = self._entry(name)
        return self._record(entry, self._find(entry))

    def pins(self) -> dict[str, str]:
        """Which digest each tag is pinned to."""
        return self._lock.pins()

    def pull(self, name: str, *, progress: Progress, deadline: Deadline, update: bool = False) -> Installed:
        """Make sure *name* is installed and its image matches its digest (it is hashed); install it otherwise.

        *update*: take what its tag stands for today, and move the pin. Told to *progress*: the phases ``install``
        (first) and ``ready`` (last), between them, by source, ``resolve``, ``download``, ``flatten``, ``update``,
        ``bootstrap``, ``pack`` and ``verify``, each with ``environment=name``. A second process that pulls the same
        waits for the first and shares its work. Raises UnknownEnvironment, EnvironmentFault, NoSpace, StorageFault,
        ProgramMissing, ProgramFailed, Busy.
        """
        entry = self._entry(name)
        if not update:
            return self._pull(entry, progress, deadline)
        if entry.origin == "import":
            raise InvalidRequest(f"{name} was imported: there is no tag to follow", remedy="Import it again.")
        return self._pull(entry, progress, deadline, sources=self._all_sources(update=True), anew=True)

    def import_image(self, path: Path, name: str, *, progress: Progress, deadline: Deadline) -> Installed:
        """Install an image from a file or directory as *name*.

        It may be an OCI layout, an archive of one, what docker saved, or a plain tar of a root filesystem. Raises
        InvalidRequest, ImageRefused, NoSpace, StorageFault.
        """
        from pyro_mcp.environments.oci.layout import LayoutSource

        if not _is_free(name):
            raise InvalidRequest(
                f"{name!r:.80} cannot be the name of an import: it belongs to the catalog or to a registry",
                remedy="Choose a short name of your own, for instance --name mine:1.",
            )
        entry = import_entry(name)
        source = LayoutSource(path, self._settings)
        return self._pull(entry, progress, deadline, sources=(source,), anew=True)

    def export(self, name: str, target: Path, kernel: Kernel, *, progress: Progress) -> str:
        """Write an installed environment as an OCI layout, a directory or (``.tar``) an archive; the manifest's digest.

        It can be imported elsewhere, and published. *kernel* goes with it.
        """
        from pyro_mcp.environments.oci.artifact import export

        return export(self.verify(self._entry(name).name), kernel, target, progress)

    def ensure(self, name: str, *, progress: Progress, deadline: Deadline) -> Installed:
        """The installed environment *name*: at once when it is there (no progress, hash or lock), else by ``pull``."""
        entry = self._entry(name)
        found = self._find(entry)
        if found is None:
            return self._pull(entry, progress, deadline)
        self._cache.touch(entry)
        return self._installed(entry, found)

    def prepared(self, name: str, command: CommandSpec) -> CommandSpec:
        """*command* as the installed environment *name* runs it: an image brings variables, a user and a directory."""
        found = self._cache.find(self._entry(name))
        config = None if found is None else found.image_config
        return command if config is None else config.prepared(command)

    def default_command(self, name: str, *, progress: Progress, deadline: Deadline) -> tuple[str, ...]:
        """What the image *name* runs when nobody says what; it is installed for that. Empty for one of the catalog."""
        if self._entry(name).origin == "catalog":
            return ()
        config = self.ensure(name, progress=progress, deadline=deadline).config
        return () if config is None else config.command

    def verify(self, name: str) -> Installed:
        """Hash the installed image. Raises EnvironmentFault when it is not installed or differs from its digest."""
        entry = self._entry(name)
        found = self._cache.load(entry)
        remedy = f"Run `pyro env pull {entry.name}`."
        if found is None:
            raise EnvironmentFault(f"{entry.name} is not installed", remedy=remedy)
        if not self._cache.matches(found):
            image = self._cache.image(found)
            raise EnvironmentFault(f"the image of {entry.name} is missing or damaged: {image}", remedy=remedy)
        return self._installed(entry, found)

    def prune(self, *, everything: bool = False, older_than: float | None = None) -> PrunedEnvironments:
        """Remove what no installed environment needs; never what a running pull owns.

        *everything*: the environments as well. *older_than*: those not used for this many seconds. A machine that runs
        from a removed image is not hurt: its VMM has the file open.
        """
        from pyro_mcp.environments.prune import prune

        return prune(self._paths, self._cache, CATALOG, everything=everything, older_than=older_than)

    def _all_sources(self, *, update: bool = False) -> "Sequence[Source]":
        if self._sources is not None:
            return self._sources
        # Imported here: whoever runs what is installed does not wait for the installer.
        from pyro_mcp.environments.bootstrap import DebianBootstrap
        from pyro_mcp.environments.oci.lazy import OciSource

        made: dict[str, Source] = {
            "oci": OciSource(self._paths, self._settings, self._lock, update=update),
            "bootstrap": DebianBootstrap(self._settings),
        }
        return [made[name] for name in dict.fromkeys((*self._settings.environment_sources, "oci"))]

    def _entry(self, name: str) -> CatalogEntry:
        """What *name* is. Raises InvalidRequest, UnknownEnvironment."""
        if isinstance(name, str) and names_a_registry(name):
            return image_entry(name)
        try:
            return lookup(name)
        except UnknownEnvironment:
            entry = import_entry(name)
            if self._cache.load(entry) is None:
                raise
            return entry

    def _entries(self) -> list[CatalogEntry]:
        """Those of the catalog, then those of installed images, each sorted by name."""
        catalog = sorted(CATALOG, key=lambda entry: entry.name)
        return catalog + sorted(self._others(), key=lambda entry: entry.name)

    def _others(self) -> list[CatalogEntry]:
        """The installed images that are not of the catalog."""
        entries = (recorded_entry(record) for record in self._cache.records())
        return [entry for entry in entries if entry is not None]

    def _find(self, entry: CatalogEntry) -> InstallRecord | None:
        """The record of *entry* if it is installed, and is the image that its tag is pinned to."""
        found = self._cache.find(entry)
        return found if found is not None and self._is_pinned(entry, found) else None

    def _is_pinned(self, entry: CatalogEntry, found: InstallRecord) -> bool:
        if not found.manifest_digest or entry.origin == "import":
            return True
        pin = self._lock.get(reference_of(entry, self._settings.environment_registry).name)
        return not pin or pin == found.manifest_digest

    def _pull(
        self,
        entry: CatalogEntry,
        progress: Progress,
        deadline: Deadline,
        *,
        sources: "Sequence[Source] | None" = None,
        anew: bool = False,
    ) -> Installed:
        waited = False

        def waiting() -> None:
            nonlocal waited
            waited = True
            progress.note(f"another process is installing {entry.name}")

        progress.phase("install", environment=entry.name)
        with self._cache.installing(entry, deadline, waiting):
            # Who waited need not hash what the other has just hashed.
            found = None if anew else self._cache.find(entry) if waited else self._cache.recheck(entry)
            if found is None or not self._is_pinned(entry, found):
                found = self._install(entry, sources or self._all_sources(), progress, deadline)
        progress.phase("ready", environment=entry.name)
        return self._installed(entry, found)

    def _install(
        self, entry: CatalogEntry, sources: "Sequence[Source]", progress: Progress, deadline: Deadline
    ) -> InstallRecord:
        from pyro_mcp.environments.budget import keep_within
        from pyro_mcp.environments.source import make_from_first

        with self._cache.partial(entry) as work:
            made = make_from_first(sources, entry, work, progress, deadline)
            progress.phase("verify", environment=entry.name)
            if entry.origin == "catalog":  # the same environment from whatever source
                made = replace(made, config=None)
            record = self._cache.publish(entry, made, work, deadline)
        keep_within(self._paths, self._cache, self._settings.environments_max_mib, entry, progress)
        return record

    def _installed(self, entry: CatalogEntry, found: InstallRecord) -> Installed:
        return Installed(
            name=entry.name,
            version=_version(entry, found),
            rootfs=self._cache.image(found),
            digest=found.source_digest,
            source=found.source,
            packages=found.packages,
            record=self._record(entry, found),
            config=found.image_config,
        )

    def _record(self, entry: CatalogEntry, found: InstallRecord | None) -> EnvironmentRecord:
        directory = self._cache.directory(entry)
        record = EnvironmentRecord(
            name=entry.name,
            version=entry.version if found is None else _version(entry, found),
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
        if entry.oci.registry:
            reference = reference_of(entry, self._settings.environment_registry)
            record["pinned_digest"] = reference.digest or self._lock.get(reference.name)
        return record


def _is_free(name: str) -> bool:
    """Whether an import may be called *name*. Raises InvalidRequest for what cannot be a name at all."""
    try:
        lookup(name)
    except UnknownEnvironment:
        return not names_a_registry(name)
    return False


def _version(entry: CatalogEntry, found: InstallRecord) -> str:
    """Of the catalog its version there, of an image its digest."""
    return entry.version if entry.origin == "catalog" else found.manifest_digest or f"sha256:{found.source_digest}"
