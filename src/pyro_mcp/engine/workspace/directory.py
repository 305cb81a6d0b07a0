"""A directory as a source. No symbolic link in it is followed, nothing in it is changed."""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from pyro_mcp.engine.workspace.destination import join, leads_outside
from pyro_mcp.engine.workspace.ignore import Ignore
from pyro_mcp.engine.workspace.options import PushOptions, SourceMode
from pyro_mcp.engine.workspace.source import MODE_BITS, Contents, Item, ItemKind, Piece, shown
from pyro_mcp.errors import InvalidRequest, SourceChanged, SourceUnreadable
from pyro_mcp.guest.sync.records import PATH_MOST
from pyro_mcp.guest.sync.stage import DATA_MOST

BLOCK = 512
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class DirectorySource:
    """A directory of the host, as it was when it was scanned."""

    mode: SourceMode = "directory"

    def __init__(self, path: Path, prefix: bytes, options: PushOptions) -> None:
        self.path = path
        self._root = os.fsencode(path)
        self._prefix = prefix
        self._options = options
        self._ignore = Ignore(path) if options.respect_ignore else None
        self._contents = Contents()
        self._linked: dict[tuple[int, int], bytes] = {}
        self._directories: list[tuple[bytes, tuple[int, int], int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""

    def scan(self) -> Contents:
        """All entries: those of a directory together, then its directories."""
        status = self.path.stat()
        waiting = deque([(b"", (status.st_dev, status.st_ino))])
        while waiting:
            place, identity = waiting.popleft()
            waiting.extend(self._scan_directory(place, identity))
        return self._contents

    def _scan_directory(self, place: bytes, identity: tuple[int, int]) -> list[tuple[bytes, tuple[int, int]]]:
        found: list[tuple[bytes, tuple[int, int]]] = []
        with self._reading(place):
            descriptor = os.open(self._at(place), _OPEN_DIRECTORY if place else _OPEN_DIRECTORY & ~os.O_NOFOLLOW)
            try:
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) != identity:
                    raise self._changed(place)
                self._directories.append((place, identity, status.st_mtime_ns))
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        path = join(place, os.fsencode(entry.name))
                        status = entry.stat(follow_symlinks=False)
                        if self._take(path, status) and stat.S_ISDIR(status.st_mode):
                            found.append((path, (status.st_dev, status.st_ino)))
            finally:
                os.close(descriptor)
        return found

    def _take(self, path: bytes, status: os.stat_result) -> bool:
        """Add an entry; whether it was."""
        mode = status.st_mode
        if self.leaves_out(path, directory=stat.S_ISDIR(mode)):
            return False
        if len(join(self._prefix, path)) > PATH_MOST:
            raise InvalidRequest(f"a path in the source is longer than {PATH_MOST} bytes: {shown(path)}")
        identity = (status.st_dev, status.st_ino)
        item = Item(path, ItemKind.DIRECTORY, mode & MODE_BITS, status.st_mtime_ns, identity=identity)
        if stat.S_ISREG(mode):
            self._file(item, status)
        elif stat.S_ISLNK(mode):
            item.kind, item.mode = ItemKind.SYMLINK, MODE_BITS
            item.target = os.readlink(self._at(path))  # noqa: PTH115 - bytes
            if leads_outside(join(self._prefix, path), item.target):
                self._contents.warn(f"{shown(path)} is a symbolic link that leads out of the workspace")
        elif not stat.S_ISDIR(mode):
            self._contents.warn(f"{shown(path)} was left out: it is a {_special(mode)}")
            return False
        self._contents.add(item, self._options)
        return True

    def _file(self, item: Item, status: os.stat_result) -> None:
        item.kind = ItemKind.FILE
        if status.st_nlink > 1:
            first = self._linked.setdefault(item.identity, item.path)
            if first != item.path:
                item.kind, item.target = ItemKind.LINK, first
                return
        item.size = status.st_size
        item.stored = min(status.st_size, status.st_blocks * BLOCK)

    def read(self, wanted: Collection[bytes]) -> Iterator[tuple[Item, Iterator[Piece]]]:
        """The contents of *wanted*; raises SourceChanged when a file is not the one that was scanned."""
        for path, item in self._contents.items.items():
            if path in wanted:
                yield item, self._pieces(item)

    def _pieces(self, item: Item) -> Iterator[Piece]:
        with self._reading(item.path):
            descriptor = os.open(self._at(item.path), _OPEN_FILE)
            try:
                self._check(item, descriptor)
                yield from _extents(descriptor, item)
                self._check(item, descriptor)
            finally:
                os.close(descriptor)

    def _check(self, item: Item, descriptor: int) -> None:
        now = os.fstat(descriptor)
        same = (now.st_dev, now.st_ino) == item.identity and now.st_mtime_ns == item.mtime_ns
        if not same or now.st_size != item.size:
            raise self._changed(item.path)

    def verify(self) -> None:
        """Directories have the times they had, so nothing was added, removed or renamed."""
        for place, identity, mtime_ns in self._directories:
            with self._reading(place):
                now = os.stat(self._at(place))  # noqa: PTH116 - bytes
            if (now.st_dev, now.st_ino) != identity or now.st_mtime_ns != mtime_ns:
                raise self._changed(place)

    def leaves_out(self, path: bytes, *, directory: bool) -> bool:
        """Whether an ignore file names it."""
        return self._ignore is not None and self._ignore.leaves_out(path, directory=directory)

    def _at(self, path: bytes) -> bytes:
        return self._root + b"/" + path if path else self._root

    def _changed(self, path: bytes) -> SourceChanged:
        return SourceChanged(f"{shown(self._at(path))} changed while it was read; nothing was switched in")

    @contextlib.contextmanager
    def _reading(self, path: bytes) -> Iterator[None]:
        """Translate what the system says. What was scanned and is gone, or is a link now, has changed."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise self._changed(path) from error
            where = error.filename if isinstance(error.filename, bytes) else self._at(path)
            raise SourceUnreadable(f"cannot read {shown(where)}: {error.strerror}") from error


def _special(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    return "FIFO" if stat.S_ISFIFO(mode) else "device"


def _extents(descriptor: int, item: Item) -> Iterator[Piece]:
    """The file's bytes and holes, exactly as many as were announced; a shorter file is found out afterwards."""
    position = 0
    while position < item.size:
        start, end = position, item.size
        if item.stored < item.size:
            start, end = _next_data(descriptor, position, item.size)
        if start > position:
            yield Piece(b"", start - position)
        while start < end:
            data = os.pread(descriptor, min(end - start, DATA_MOST), start)
            if not data:
                return
            yield Piece(data)
            start += len(data)
        position = end


def _next_data(descriptor: int, position: int, size: int) -> tuple[int, int]:
    try:
        start = os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        raise
    return min(start, size), min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
