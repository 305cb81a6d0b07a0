"""The cache of images: content-addressed, installed under a lock, cheap to check at each use.

::

    <environments>/images/sha256-<digest>.squashfs                 an image, mode 0444, shared by its environments
    <environments>/linux-x86_64/<name>-<version>/environment.json  an installed environment
    <environments>/linux-x86_64/.partial-<name>-<random>/          an installation at work, owned by the lock's holder
    <environments>/locks/<name>.lock                               held while an environment is installed
    <environments>/locks/images.lock                               held while images come or go (moments)
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_mcp.environments.catalog import CATALOG_VERSION, CatalogEntry
from pyro_mcp.environments.record import RECORD_NAME, InstallRecord, image_name, read_record
from pyro_mcp.errors import PyroError, StorageFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, sha256_file, storage
from pyro_mcp.host.locks import locked
from pyro_mcp.model import new_token
from pyro_mcp.paths import Paths

if TYPE_CHECKING:  # who runs what is installed does not wait for what makes it
    from pyro_mcp.environments.source import Made

PARTIAL = re.compile(r"\.partial-(?P<slug>[A-Za-z0-9._-]+)-[0-9a-f]{12}")
IMAGES_LOCK = "images.lock"


class Cache:
    """The environments installed under *paths*."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def directory(self, entry: CatalogEntry) -> Path:
        """Where *entry* is, or would be, installed."""
        return self._paths.installed / entry.directory_name

    def image(self, record: InstallRecord) -> Path:
        """The image of an installed environment."""
        return self._paths.images / record.image

    def lock_path(self, slug: str) -> Path:
        """The lock that the installer of this environment holds."""
        return self._paths.environment_locks / f"{slug}.lock"

    @property
    def images_lock(self) -> Path:
        """The lock that is held while images come or go."""
        return self._paths.environment_locks / IMAGES_LOCK

    def load(self, entry: CatalogEntry) -> InstallRecord | None:
        """The record of *entry* whatever its image is like."""
        record = read_record(self.directory(entry))
        return record if record is not None and record.describes(entry) else None

    def find(self, entry: CatalogEntry) -> InstallRecord | None:
        """The record of *entry* if it is installed: its image has the size and the time it had when it was hashed."""
        record = self.load(entry)
        return record if record is not None and self._stamp(record) == (record.size, record.mtime_ns) else None

    def records(self) -> list[InstallRecord]:
        """The records of all that is installed, whatever their images are like."""
        with storage(f"reading {self._paths.installed}"):
            if not self._paths.installed.exists():
                return []
            directories = sorted(path for path in self._paths.installed.iterdir() if not path.name.startswith("."))
        found = [read_record(path) for path in directories if path.is_dir() and not path.is_symlink()]
        return [record for record in found if record is not None]

    def touch(self, entry: CatalogEntry) -> None:
        """Note that *entry* is used: the time of its record is that of the last use."""
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(self.directory(entry) / RECORD_NAME)

    def recheck(self, entry: CatalogEntry) -> InstallRecord | None:
        """The record of *entry* if its image has its digest (it is hashed). The caller holds the lock.

        An image that was copied or restored has another time and the right content: its record is brought up to date.
        """
        record = self.load(entry)
        stamp = self._stamp(record) if record is not None else None
        if record is None or stamp is None or stamp[0] != record.size or not self.matches(record):
            return None
        if stamp[1] != record.mtime_ns:
            record = replace(record, mtime_ns=stamp[1])
            record.write(self.directory(entry))
        return record

    def is_whole(self, record: InstallRecord) -> bool:
        """Whether the image is there with its size, if perhaps with another time (of a copied cache)."""
        stamp = self._stamp(record)
        return stamp is not None and stamp[0] == record.size

    def matches(self, record: InstallRecord) -> bool:
        """Whether the image is there with the recorded digest."""
        return self._stamp(record) is not None and sha256_file(self.image(record)) == record.source_digest

    def _stamp(self, record: InstallRecord) -> tuple[int, int] | None:
        """Size and time of the image, ``None`` when it is not there."""
        with storage(f"looking at {self.image(record)}"):
            try:
                status = self.image(record).stat()
            except FileNotFoundError:
                return None
        return status.st_size, status.st_mtime_ns

    @contextlib.contextmanager
    def installing(self, entry: CatalogEntry, deadline: Deadline, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of *entry*; *waiting* is called when another process has it. Raises Busy at the *deadline*."""
        self.prepare()
        with locked(self.lock_path(entry.slug), deadline, waiting=waiting):
            yield

    def prepare(self) -> None:
        """Make the directories. The cache's root may be anybody's choice, so its mode is left alone."""
        root = self._paths.environments
        with storage(f"preparing {root}"):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self._paths.images, self._paths.installed, self._paths.environment_locks):
            private_directory(directory)

    @contextlib.contextmanager
    def partial(self, entry: CatalogEntry) -> Iterator[Path]:
        """A directory to install *entry* in; what a killed installer left goes first. The caller holds the lock."""
        for directory in self.partials():
            found = PARTIAL.fullmatch(directory.name)
            if found is not None and found["slug"] == entry.slug:
                remove_tree(directory)
        directory = self._paths.installed / f".partial-{entry.slug}-{new_token()}"
        with storage(f"preparing {directory}"):
            directory.mkdir(mode=0o700)
        try:
            yield directory
        except BaseException:
            with contextlib.suppress(PyroError):  # the next installer sweeps; the error at hand matters more
                remove_tree(directory)
            raise
        remove_tree(directory)

    def partials(self) -> list[Path]:
        """Installations at work, and what is left of killed ones."""
        with storage(f"reading {self._paths.installed}"):
            return [path for path in self._paths.installed.iterdir() if path.name.startswith(".partial-")]

    def publish(self, entry: CatalogEntry, made: "Made", work: Path, deadline: Deadline) -> InstallRecord:
        """Make *made* the installed *entry*: the image, then in one step the record, both flushed to the disk."""
        digest = sha256_file(made.image)
        with storage(f"installing {entry.name}"):
            made.image.chmod(0o444)
            _flush(made.image)
            status = made.image.stat()
        if status.st_size == 0:
            raise StorageFault(f"the image of {entry.name} is empty")
        with locked(self.images_lock, deadline), storage(f"installing {entry.name}"):
            image = self._paths.images / image_name(digest)
            # One of the same content may be there, or a damaged one. Machines keep what they opened. The time stays
            # what the records of other environments with this image say.
            with contextlib.suppress(FileNotFoundError):
                old = image.stat()
                os.utime(made.image, ns=(old.st_atime_ns, old.st_mtime_ns))
                status = made.image.stat()
            made.image.replace(image)
            _flush(self._paths.images)
            record = InstallRecord(
                catalog_version=CATALOG_VERSION,
                name=entry.name,
                version=entry.version,
                source=made.source,
                source_digest=digest,
                image=image.name,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                installed_at=int(time.time()),
                packages=made.packages,
                manifest_digest=made.manifest_digest,
                config={} if made.config is None else made.config.as_dict(),
            )
            self._install_record(entry, record, work)
        return record

    def _install_record(self, entry: CatalogEntry, record: InstallRecord, work: Path) -> None:
        fresh = work / "record"
        fresh.mkdir(mode=0o700)
        record.write(fresh)
        target = self.directory(entry)
        target.mkdir(mode=0o700, exist_ok=True)
        for path in fresh.iterdir():
            path.replace(target / path.name)
        _flush(target)
        _flush(self._paths.installed)


def _flush(path: Path) -> None:
    """Have the kernel write a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
