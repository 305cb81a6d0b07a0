"""From what a user calls an environment to what is known about it before it is installed."""

from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.catalog import CatalogEntry, OciName
from pyro_mcp.environments.oci.lock import Lock
from pyro_mcp.environments.oci.reference import Reference, parse
from pyro_mcp.environments.record import InstallRecord
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.paths import Paths


def image_entry(text: str) -> CatalogEntry:
    """The entry of an image named by its registry. Raises InvalidRequest."""
    found = parse(text)
    return CatalogEntry(
        name=found.name,
        description="Image of a registry.",
        packages=(),
        include=(),
        root_mib=0,
        image_mib=0,
        oci=OciName(found.registry, found.repository, found.wanted),
        version="image",
        distribution="",
        distribution_version="",
        suite="",
        origin="image",
    )


def import_entry(name: str) -> CatalogEntry:
    """The entry of an image that was imported under *name*."""
    return CatalogEntry(
        name=name,
        description="Imported image.",
        packages=(),
        include=(),
        root_mib=0,
        image_mib=0,
        oci=OciName("", "", ""),
        version="import",
        distribution="",
        distribution_version="",
        suite="",
        origin="import",
    )


def reference_of(entry: CatalogEntry, own_registry: str = "") -> Reference:
    """The image of *entry*. One of the catalog comes from *own_registry*, if there is one, under its own name."""
    if entry.origin == "catalog" and own_registry:
        return parse(f"{own_registry}/{entry.name}")
    oci = entry.oci
    if not oci.registry:
        raise InvalidRequest(f"{entry.name} does not come from a registry")
    separator = "@" if oci.reference.startswith("sha256:") else ":"
    return parse(f"{oci.registry}/{oci.repository}{separator}{oci.reference}")


def recorded_entry(record: InstallRecord) -> CatalogEntry | None:
    """The entry of an installed image; ``None`` for an environment of the catalog."""
    if record.version == "import":
        return import_entry(record.name)
    if record.version != "image":
        return None
    try:
        return image_entry(record.name)
    except InvalidRequest:  # a record somebody has written
        return None


def lock_of(paths: Paths, settings: Settings) -> Lock:
    """The lock file that counts for this user."""
    chosen = settings.environments_lock
    path = Path(chosen).expanduser().absolute() if chosen else paths.environments_lock
    return Lock(path, paths.environment_locks / "environments.lock.lock")
