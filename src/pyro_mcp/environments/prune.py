"""Removing from the cache what no installed environment needs, without hurting a running installation."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyro_mcp.environments.cache import PARTIAL, Cache
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci.names import recorded_entry
from pyro_mcp.environments.record import RECORD_NAME, read_record
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import remove_tree, storage
from pyro_mcp.host.locks import locked, try_lock
from pyro_mcp.model import PrunedEnvironments
from pyro_mcp.paths import Paths

IMAGE = re.compile(r"sha256-[0-9a-f]{64}\.squashfs")
BLOB = re.compile(r"(?:\.partial-)?sha256-[0-9a-f]{64}")
LOCK_SECONDS = 60.0


def prune(
    paths: Paths,
    cache: Cache,
    catalog: Sequence[CatalogEntry],
    *,
    everything: bool = False,
    older_than: float | None = None,
) -> PrunedEnvironments:
    """Remove what killed pulls left, what is no installed environment, and unneeded images.

    *everything*: installed environments, too; *older_than*: those not used for this many seconds. A running
    installation keeps its directory (it holds the lock), its blobs (locked, or open) and its image (images go under the
    lock it publishes under). A machine that runs from a removed image goes on: its VMM has the file open. The answer
    names an image only when no directory that went had named it.
    """
    if not paths.installed.exists():
        return PrunedEnvironments(count=0, deleted_environment_dirs=[])
    cache.prepare()
    gone = _prune_partials(cache)
    gone += _prune_blobs(paths)
    with locked(cache.images_lock, Deadline.after(LOCK_SECONDS)):
        kept = set() if everything else _kept(paths, cache, catalog, older_than)
        directories, told = _prune_directories(paths, kept)
        images = unneeded_images(paths, cache)
    gone += directories + [f"{paths.images.name}/{name}" for name in images if name not in told]
    return PrunedEnvironments(count=len(gone), deleted_environment_dirs=gone)


def remove_environment(cache: Cache, entry: CatalogEntry) -> None:
    """Remove an installed environment; its image goes with ``unneeded_images``. The caller holds the images' lock."""
    remove_tree(cache.directory(entry))


def _kept(paths: Paths, cache: Cache, catalog: Iterable[CatalogEntry], older_than: float | None) -> set[str]:
    """The directories of installed environments, without those whose last use was *older_than* seconds ago."""
    kept = {entry.directory_name for entry in catalog if cache.find(entry) is not None}
    for record in cache.records():
        entry = recorded_entry(record)
        if entry is not None and cache.is_whole(record):
            kept.add(entry.directory_name)
    if older_than is None:
        return kept
    limit = time.time() - older_than
    return {name for name in kept if _used_at(paths.installed / name) >= limit}


def _used_at(directory: Path) -> float:
    with storage(f"reading {directory}"):
        return (directory / RECORD_NAME).stat().st_mtime


def _prune_blobs(paths: Paths) -> list[str]:
    """Remove parts of images; those that come in are locked, those that are being packed are open."""
    if not paths.blobs.is_dir():
        return []
    gone = []
    with storage(f"reading {paths.blobs}"):
        present = sorted(path for path in paths.blobs.iterdir() if BLOB.fullmatch(path.name))
    for path in present:
        descriptor = try_lock(path)
        if descriptor is None:
            continue
        try:
            with storage(f"removing {path}"):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        gone.append(f"{paths.blobs.name}/{path.name}")
    return gone


def _prune_partials(cache: Cache) -> list[str]:
    """Remove what killed installers left; where the lock is held, the installer is alive."""
    gone = []
    for directory in sorted(cache.partials()):
        found = PARTIAL.fullmatch(directory.name)
        if found is None:
            gone.append(_remove(directory))
            continue
        descriptor = try_lock(cache.lock_path(found["slug"]))
        if descriptor is None:
            continue
        try:
            if directory.exists():
                gone.append(_remove(directory))
        finally:
            os.close(descriptor)
    return gone


def _prune_directories(paths: Paths, kept: set[str]) -> tuple[list[str], set[str]]:
    """Remove all directories but *kept*; also returns the images that what went had named."""
    gone, told = [], set()
    with storage(f"reading {paths.installed}"):
        present = sorted(path for path in paths.installed.iterdir() if not path.name.startswith(".partial-"))
    for directory in present:
        if directory.name in kept or directory.is_symlink() or not directory.is_dir():
            continue
        record = read_record(directory)
        if record is not None:
            told.add(record.image)
        gone.append(_remove(directory))
    return gone, told


def unneeded_images(paths: Paths, cache: Cache) -> list[str]:
    """Remove the images that no record names; their names. The caller holds the images' lock."""
    needed = {record.image for record in cache.records()}
    with storage(f"reading {paths.images}"):
        unneeded = sorted(
            path for path in paths.images.iterdir() if IMAGE.fullmatch(path.name) and path.name not in needed
        )
    for path in unneeded:
        with storage(f"removing {path}"), contextlib.suppress(FileNotFoundError):
            path.unlink()
    return [path.name for path in unneeded]


def _remove(directory: Path) -> str:
    """Remove a directory of the cache; something else of that name is unlinked, never followed."""
    if directory.is_symlink() or not directory.is_dir():
        with storage(f"removing {directory}"):
            directory.unlink(missing_ok=True)
    else:
        remove_tree(directory)
    return directory.name
