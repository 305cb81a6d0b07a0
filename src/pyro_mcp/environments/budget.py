"""The size budget: what was not used for longest goes first."""

from pathlib import Path

from pyro_mcp.environments.cache import Cache
from pyro_mcp.environments.catalog import CATALOG, CatalogEntry
from pyro_mcp.environments.oci.names import recorded_entry
from pyro_mcp.environments.prune import remove_environment, unneeded_images
from pyro_mcp.environments.record import RECORD_NAME, InstallRecord
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import locked
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths

MIB = 1 << 20
LOCK_SECONDS = 10.0


def keep_within(paths: Paths, cache: Cache, most_mib: int, kept: CatalogEntry, progress: Progress) -> None:
    """Remove environments until all images together take at most *most_mib* MiB, and images that nobody needs.

    *kept* stays, and so does what was imported: it cannot be had again. A cache that cannot be trimmed now is trimmed
    by the next pull.
    """
    try:
        with locked(cache.images_lock, Deadline.after(LOCK_SECONDS)):
            unneeded_images(paths, cache)
            sizes = {record.image: record.size for record in cache.records()}
            for entry, record in _by_age(paths, cache, kept):
                if sum(sizes.values()) <= most_mib * MIB:
                    return
                remove_environment(cache, entry)
                progress.note(f"{entry.name} was not used for longest, and made room")
                unneeded_images(paths, cache)
                if not any(other.image == record.image for other in cache.records()):
                    sizes.pop(record.image, None)
    except PyroError as error:
        progress.note(f"the cache was not trimmed: {error}")


def _by_age(paths: Paths, cache: Cache, kept: CatalogEntry) -> list[tuple[CatalogEntry, InstallRecord]]:
    """What may go, the one used least recently first."""
    known = {(entry.name, entry.version): entry for entry in CATALOG}
    found = []
    for record in cache.records():
        entry = known.get((record.name, record.version)) or recorded_entry(record)
        if entry is None or entry.origin == "import" or entry.name == kept.name:
            continue
        found.append((_used_at(paths.installed / entry.directory_name), entry, record))
    found.sort(key=lambda row: row[0])
    return [(entry, record) for _, entry, record in found]


def _used_at(directory: Path) -> float:
    try:
        return (directory / RECORD_NAME).stat().st_mtime
    except OSError:
        return 0.0
