"""The registry as a source of environments. Cheap to import: what talks to it is loaded when it is asked."""

from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci.lock import Lock
from pyro_mcp.environments.source import Made
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths


class OciSource:
    """Images from a registry. *update*: take what a tag stands for today, and move its pin there."""

    def __init__(self, paths: Paths, settings: Settings, lock: Lock, *, update: bool = False) -> None:
        self._paths = paths
        self._settings = settings
        self._lock = lock
        self._update = update

    @property
    def title(self) -> str:
        """What a person calls it."""
        return "OCI registry"

    def offers(self, entry: CatalogEntry) -> bool:
        """Whether this source can be asked for *entry*. An image that lacks what the entry promises is no offer."""
        if entry.origin != "catalog":
            return entry.origin == "image"
        if "oci" not in self._settings.environment_sources:
            return False
        return bool(self._settings.environment_registry) or not entry.oci_lacks

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Pull the image of *entry* and flatten it into the directory *work*."""
        from pyro_mcp.environments.oci.source import OciPuller

        puller = OciPuller(self._paths, self._settings, self._lock, update=self._update)
        return puller.make(entry, work, progress, deadline)
