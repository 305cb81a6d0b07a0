"""Removing from the cache what no environment of the catalog needs, without hurting a running installation."""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyro_mcp.environments.cache import PARTIAL, Cache
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.record import read_record
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import remove_tree, storage
from pyro_mcp.host.locks import locked, try_lock
from pyro_mcp.model import PrunedEnvironments
from pyro_mcp.paths import Paths

IMAGE = re.compile(r"sha256-[0-9a-f]{64}\.squashfs")
LOCK_SECONDS = 60.0


def prune(paths: Paths, cache: Cache, catalog: Sequence[CatalogEntry]) -> PrunedEnvironments:
    """Remove left-over ``.partial-*`` directories, what is no installed environment, and unneeded images.

    A running installation keeps its directory (it holds the lock) and its image (images go under the lock it publishes
    under). A machine that runs from a removed image goes on: its VMM has the file open. The answer names an image only
    when no directory that went had named it.
    """
    if not paths.installed.exists():
        return PrunedEnvironments(count=0, deleted_environment_dirs=[])
    cache.prepare()
    gone = _prune_partials(cache)
    with locked(cache.images_lock, Deadline.after(LOCK_SECONDS)):
        directories, told = _prune_directories(paths, cache, catalog)
        images = _prune_images(paths, {record.image for entry in catalog if (record := cache.find(entry)) is not None})
    gone += directories + [f"{paths.images.name}/{name}" for name in images if name not in told]
    return PrunedEnvironments(count=len(gone), deleted_environment_dirs=gone)


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


def _prune_directories(paths: Paths, cache: Cache, catalog: Iterable[CatalogEntry]) -> tuple[list[str], set[str]]:
    """Remove all but the installed environments of *catalog*; also returns the images that what went had named."""
    kept = {entry.directory_name for entry in catalog if cache.find(entry) is not None}
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


def _prune_images(paths: Paths, needed: set[str]) -> list[str]:
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
