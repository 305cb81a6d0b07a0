"""Where a pull lands: a directory of ours beside the destination, on its filesystem, until all of it has come.

What comes is hostile. Records name a directory of theirs that was made here and one name in it, everything is made new
(``O_EXCL``) and nothing is followed, so nothing outside of that directory can be touched.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.engine.workspace.source import MODE_BITS
from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest.sync.records import Kind, Record
from pyro_mcp.host.files import storage
from pyro_mcp.model import new_token

PREFIX = ".pyro-pull-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Landing:
    """The files of one pull, on their way."""

    def __init__(self, place: Path, descriptor: int) -> None:
        self.place = place
        self._root = descriptor
        self._directories: list[tuple[bytes, Record | None]] = [(b"", None)]
        self._open = (0, descriptor)
        self._file = -1
        self._record: Record | None = None
        self._left = 0
        self._position = 0
        self._solid = 0

    def take(self, record: Record, path: bytes) -> None:
        """Put a checked record of a walk where it belongs; *path* is from the walk's root on."""
        try:
            if record.kind is Kind.DATA:
                self._write(record.data)
            elif record.kind is Kind.HOLE:
                self._advance(record.size)
            else:
                self._named(record, path)
        except FileExistsError as error:
            raise GuestProtocol("the guest sent an entry twice") from error

    def finish(self) -> None:
        """Give the directories their modes and times, the inner ones first."""
        for path, record in reversed(self._directories[1:]):
            if record is not None:
                with self._directory(path) as descriptor:
                    os.fchmod(descriptor, record.mode & MODE_BITS)
                    os.utime(descriptor, ns=(record.mtime_ns, record.mtime_ns))

    def close(self) -> None:
        """Close what is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._forget()

    def _named(self, record: Record, path: bytes) -> None:
        parent = self._parent(record.dir)
        times = (record.mtime_ns, record.mtime_ns)
        if record.kind is Kind.DIRECTORY:
            os.mkdir(record.name, 0o700, dir_fd=parent)
            self._directories.append((path, record))
        elif record.kind is Kind.SYMLINK:
            os.symlink(record.target, record.name, dir_fd=parent)
            os.utime(record.name, ns=times, dir_fd=parent, follow_symlinks=False)
        elif record.kind is Kind.LINK:
            with self._directory(self._directories[record.target_dir][0]) as other:
                os.link(record.target, record.name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
        elif record.kind is Kind.FILE:
            self._file = os.open(record.name, _NEW_FILE, 0o600, dir_fd=parent)
            self._record, self._left, self._position, self._solid = record, record.size, 0, 0
            self._finish_file()

    def _write(self, data: memoryview) -> None:
        rest = data
        while rest:
            count = os.pwrite(self._file, rest, self._position + len(data) - len(rest))
            rest = rest[count:]
        self._solid = self._position + len(data)
        self._advance(len(data))

    def _advance(self, size: int) -> None:
        self._position += size
        self._left -= size
        self._finish_file()

    def _finish_file(self) -> None:
        if self._left or self._record is None:
            return
        descriptor, record = self._file, self._record
        self._file = -1
        try:
            if self._solid < record.size:
                os.ftruncate(descriptor, record.size)
            os.fchmod(descriptor, record.mode & MODE_BITS)
            os.utime(descriptor, ns=(record.mtime_ns, record.mtime_ns))
        finally:
            os.close(descriptor)

    def _parent(self, number: int) -> int:
        """A directory of the walk, open until the next call."""
        known, descriptor = self._open
        if known == number:
            return descriptor
        self._forget()
        if number == 0:
            return self._root
        descriptor = os.open(self._directories[number][0], _DIRECTORY, dir_fd=self._root)
        self._open = (number, descriptor)
        return descriptor

    def _forget(self) -> None:
        number, descriptor = self._open
        if number:
            os.close(descriptor)
        self._open = (0, self._root)

    @contextlib.contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        descriptor = os.open(path or b".", _DIRECTORY, dir_fd=self._root)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def landing(parent: Path) -> Iterator[Landing]:
    """A place in *parent* for a pull; what is still in it at the end is removed, and what dead pulls left there too."""
    with contextlib.ExitStack() as opened:
        with storage(f"preparing {parent}"):
            _sweep(parent)
            place, lock = _hold(parent)
            opened.callback(os.close, lock)
            opened.callback(_remove, place)
            tree = place / "tree"
            tree.mkdir()
            root = os.open(tree, _DIRECTORY)
            opened.callback(os.close, root)
        found = Landing(tree, root)
        opened.callback(found.close)
        yield found


def _hold(parent: Path) -> tuple[Path, int]:
    """A new place, and the descriptor that locks it. A sweep may take a place that is not locked yet: then another."""
    while True:
        place = parent / f"{PREFIX}{new_token()}"
        place.mkdir(mode=0o700)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(_remove, place)
            try:
                lock = os.open(place, _DIRECTORY)
            except FileNotFoundError:
                continue
            on_failure.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if place.exists():
                on_failure.pop_all()
                return place, lock


def _sweep(parent: Path) -> None:
    """Remove places that nobody holds: their pulls were killed."""
    for place in parent.glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(place, _DIRECTORY)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(place)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def _remove(place: Path) -> None:
    """Remove a tree whose directories may have any mode. No symbolic link is followed."""
    with storage(f"removing {place}"):
        try:
            shutil.rmtree(place)
        except FileNotFoundError:
            return
        except PermissionError:
            for directory, _, _, descriptor in os.fwalk(place, topdown=True, onerror=lambda _: None):
                del directory
                _open_up(descriptor)
            shutil.rmtree(place, ignore_errors=False)


def _open_up(descriptor: int) -> None:
    """Let us into the directories of one."""
    os.fchmod(descriptor, 0o700)
    for name in os.listdir(descriptor):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            os.chmod(name, 0o700, dir_fd=descriptor)
