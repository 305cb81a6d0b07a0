"""The source of environments that pulls images from a registry."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci import image as images
from pyro_mcp.environments.oci import reach
from pyro_mcp.environments.oci.config import read_config
from pyro_mcp.environments.oci.credentials import credentials_for
from pyro_mcp.environments.oci.endpoint import Endpoint, endpoints, split
from pyro_mcp.environments.oci.layers import Limits
from pyro_mcp.environments.oci.lock import Lock
from pyro_mcp.environments.oci.media import Manifest
from pyro_mcp.environments.oci.names import reference_of
from pyro_mcp.environments.oci.pull import Puller, pulling
from pyro_mcp.environments.oci.reference import Reference
from pyro_mcp.environments.oci.registry import Document, NotThere, Repository
from pyro_mcp.environments.oci.transport import Tuning
from pyro_mcp.environments.oci.trust import NoSignatures, Signatures
from pyro_mcp.environments.source import MIB, Made, require_space
from pyro_mcp.errors import EnvironmentFault, ImageRefused, RegistryFault, RegistryUnreachable
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths

STALL_SECONDS = 30.0
# Where another source is at hand, a registry that does not answer must not be waited for.
HASTY_CONNECT_SECONDS = 1.5
HASTY_ATTEMPTS = 2
HASTY_PAUSE_MOST = 5.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What a tag or a digest stands for, and who said so."""

    reference: Reference
    repository: Repository
    document: Document


class OciPuller:
    """The work of ``OciSource``; made when a registry is really to be asked."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        lock: Lock,
        *,
        update: bool = False,
        tuning: Tuning | None = None,
        signatures: Signatures | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._lock = lock
        self._update = update
        self._tuning = tuning or Tuning(stall_seconds=min(STALL_SECONDS, settings.oci_request_timeout))
        self._signatures = signatures or NoSignatures()
        self._environ = os.environ if environ is None else environ

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Pull the image of *entry* and flatten it into the directory *work*."""
        reference = reference_of(entry, self._settings.environment_registry)
        tuning = self._patience(entry, reference)
        pinned = "" if self._update else self._lock.get(reference.name)
        with pulling(self._paths.blobs, tuning, progress, deadline) as puller:
            progress.phase("resolve", environment=entry.name)
            found = self._resolve(puller, entry, reference, pinned)
            manifest = puller.manifest(found.repository, found.document)
            self._signatures.check(reference, found.document.digest)
            made = self._made(puller, found, manifest, entry, work)
        lacking = sorted(set(entry.packages) - made.packages.keys())
        if lacking:
            raise EnvironmentFault(f"{reference.name} lacks what {entry.name} promises: {', '.join(lacking)}")
        if not reference.digest:
            self._pin(reference, found.document.digest, progress)
        return made

    def _patience(self, entry: CatalogEntry, reference: Reference) -> Tuning:
        """How long to wait for the registry. Raises RegistryUnreachable for one that was out of reach just now."""
        if entry.origin != "catalog" or "bootstrap" not in self._settings.environment_sources:
            return self._tuning
        ago = reach.remembered(self._paths, reference.registry)
        if ago is not None:
            raise RegistryUnreachable(f"{reference.registry} could not be reached {ago:.0f} s ago")
        return replace(
            self._tuning,
            connect_seconds=min(self._tuning.connect_seconds, HASTY_CONNECT_SECONDS),
            attempts=min(self._tuning.attempts, HASTY_ATTEMPTS),
            pause_most=min(self._tuning.pause_most, HASTY_PAUSE_MOST),
        )

    def _resolve(self, puller: Puller, entry: CatalogEntry, reference: Reference, pinned: str) -> _Found:
        """Ask the servers in order for the manifest. Raises the last one's error."""
        wanted = pinned or reference.wanted
        servers = self._servers(reference)
        for number, server in enumerate(servers, 1):
            named = entry.origin != "catalog" and server.registry == reference.registry  # and not a mirror of it
            credentials = credentials_for(server.registry, self._environ, named_by_user=named)
            repository = Repository(server, reference.repository, puller.transport, credentials)
            try:
                document = repository.manifest(wanted, puller.deadline)
            except RegistryFault as error:
                if number == len(servers):
                    self._explain(error, reference, pinned)
                    raise
                puller.progress.note(f"{error}; trying {servers[number].title}")
                continue
            reach.remember(self._paths, reference.registry, reached=True)
            return _Found(reference, repository, document)
        raise AssertionError("a registry is its own last server")

    def _servers(self, reference: Reference) -> Sequence[Endpoint]:
        insecure = split(self._settings.insecure_registries)
        return endpoints(reference.registry, self._settings.registry_mirrors, insecure)

    def _explain(self, error: RegistryFault, reference: Reference, pinned: str) -> None:
        """Remember a registry that is out of reach; say it when a pinned digest is gone."""
        if isinstance(error, RegistryUnreachable):
            reach.remember(self._paths, reference.registry, reached=False)
        if pinned and isinstance(error, NotThere):
            raise RegistryFault(
                f"{reference.name} is pinned to {pinned}, which the registry does not have any more",
                remedy=f"Take what the tag stands for today: `pyro env pull --update {reference.name}`.",
            ) from error

    def _made(self, puller: Puller, found: _Found, manifest: Manifest, entry: CatalogEntry, work: Path) -> Made:
        described = read_config(found.repository.small_blob(manifest.config, puller.deadline))
        layers, ids = manifest.layers, described.diff_ids
        artifact = images.is_artifact(manifest, described)
        if artifact:  # the kernel in it is for others; machines here start from the runtime's own
            layers, ids = layers[1:], ids[1:]
        require_space(work, 2 * sum(layer.size for layer in layers) // MIB, entry.name)
        blobs = puller.blobs(found.repository, layers, entry.name)
        digests = [layer.digest for layer in layers]
        try:
            image = images.Image(
                source=f"oci://{found.reference.at(found.document.digest).name}",
                digest=found.document.digest,
                described=described,
                layers=images.layers_of(blobs, ids),
                artifact=artifact,
            )
            limits = Limits(self._settings.image_max_mib * MIB)
            made = images.make(image, entry.name, work, limits, puller.progress, puller.deadline)
        except ImageRefused:
            puller.store.drop(digests)  # it may be that they were damaged here
            raise
        finally:
            for blob in blobs:
                blob.close()
        puller.store.drop(digests)
        return made

    def _pin(self, reference: Reference, digest: str, progress: Progress) -> None:
        old = self._lock.get(reference.name)
        if old != digest:
            self._lock.pin(reference.name, digest)
            progress.note(f"{reference.name} {f'moved from {old} to' if old else 'is pinned to'} {digest}")
