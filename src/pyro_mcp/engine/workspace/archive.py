"""An archive as a source. Every member is checked before anything is sent, and nothing is unpacked here."""

import contextlib
import tarfile
from collections.abc import Collection, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Self

from pyro_mcp.engine.workspace.destination import join, leads_outside
from pyro_mcp.engine.workspace.options import PushOptions, SourceMode
from pyro_mcp.engine.workspace.source import MODE_BITS, Contents, Item, ItemKind, Piece, shown
from pyro_mcp.engine.workspace.stream import HEADERS_MOST, ArchiveStream
from pyro_mcp.errors import ArchiveRefused, InvalidRequest, SourceChanged, SourceUnreadable
from pyro_mcp.guest.sync.records import NAME_MOST, PATH_MOST, valid_target
from pyro_mcp.guest.sync.stage import DATA_MOST

TIME_MOST = 1 << 33  # seconds; what a filesystem can keep is less
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_KINDS = {
    **dict.fromkeys(_FILES, ItemKind.FILE),
    tarfile.DIRTYPE: ItemKind.DIRECTORY,
    tarfile.SYMTYPE: ItemKind.SYMLINK,
    tarfile.LNKTYPE: ItemKind.LINK,
}
_SPECIAL = {tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "FIFO"}


class ArchiveSource:
    """An archive. It is read twice: once to check all of it, once for what is wanted."""

    mode: SourceMode = "tar_archive"

    def __init__(self, path: Path, prefix: bytes, options: PushOptions) -> None:
        if options.respect_ignore:
            raise InvalidRequest("ignore files are respected in directories, not in archives")
        self.path = path
        self._prefix = prefix
        self._options = options
        self._contents = Contents()
        self._identity: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""

    def scan(self) -> Contents:
        """Check every member, to the very end of the file. Raises ArchiveRefused naming the member."""
        with self._opened() as stream:
            self._identity = stream.identity
            for member in _members(stream):
                self._take(member)
            stream.finish()
        return self._contents

    def read(self, wanted: Collection[bytes]) -> Iterator[tuple[Item, Iterator[Piece]]]:
        """The contents of *wanted*."""
        left = len(wanted)
        if not left:
            return
        with self._opened() as stream:
            for member in _members(stream):
                path = _path(member)
                if path in wanted and member.type in _FILES:
                    yield self._contents.items[path], _pieces(member, stream)
                    left -= 1
                    if not left:
                        return
        raise self._changed()

    def verify(self) -> None:
        """The archive is the file that was scanned."""
        with self._opened():
            pass

    def leaves_out(self, path: bytes, *, directory: bool) -> bool:  # noqa: ARG002 - as Source has it
        """Nothing is left out of an archive."""
        return False

    @contextlib.contextmanager
    def _opened(self) -> Iterator[ArchiveStream]:
        try:
            with ArchiveStream(self.path) as stream:
                if self._identity and stream.identity != self._identity:
                    raise self._changed()
                yield stream
        except OSError as error:
            raise SourceUnreadable(f"cannot read {self.path}: {error.strerror or error}") from error

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self.path} changed while it was read; nothing was switched in")

    def _take(self, member: tarfile.TarInfo) -> None:
        path = _path(member)
        kind = _KINDS.get(member.type)
        if kind is None:
            raise _refuse(member, f"is a {_SPECIAL.get(member.type, 'member of an unknown kind')}")
        if not path:
            if kind is not ItemKind.DIRECTORY:
                raise _refuse(member, "has no name")
            return  # the directory that was packed: the destination stays as it is
        if len(join(self._prefix, path)) > PATH_MOST:
            raise _refuse(member, "has a path that is too long")
        self._parents(member, path)
        item = Item(path, kind, member.mode & MODE_BITS, _mtime_ns(member))
        known = self._contents.items.get(path)
        if known is not None:
            self._again(member, known, item)
            return
        self._complete(member, item)
        self._contents.add(item, self._options)

    def _complete(self, member: tarfile.TarInfo, item: Item) -> None:
        if item.kind is ItemKind.FILE:
            item.size = member.size
            item.stored = sum(size for _, size in _extents(member))
            if item.stored > item.size:
                raise _refuse(member, "has an impossible size")
        elif item.kind is ItemKind.SYMLINK:
            item.target, item.mode = self._symlink(member, item.path), MODE_BITS
        elif item.kind is ItemKind.LINK:
            item.target = self._link(member)

    def _again(self, member: tarfile.TarInfo, known: Item, item: Item) -> None:
        """A directory may come again, or after what is in it; its last attributes count."""
        if known.kind is not ItemKind.DIRECTORY or item.kind is not ItemKind.DIRECTORY:
            raise _refuse(member, "stands in the archive twice")
        self._contents.count += known.implied
        known.mode, known.mtime_ns, known.implied = item.mode, item.mtime_ns, False

    def _parents(self, member: tarfile.TarInfo, path: bytes) -> None:
        """Directories on the way are implied; anything else on the way is an attack, or a mistake."""
        end = path.find(b"/")
        while end >= 0:
            parent = path[:end]
            known = self._contents.items.get(parent)
            if known is None:
                self._contents.add(Item(parent, ItemKind.DIRECTORY, implied=True), self._options)
            elif known.kind is not ItemKind.DIRECTORY:
                raise _refuse(member, f"lies below {shown(parent)}, which is a {known.kind.value}")
            end = path.find(b"/", end + 1)

    def _symlink(self, member: tarfile.TarInfo, path: bytes) -> bytes:
        target = _bytes(member.linkname)
        if not valid_target(target):
            raise _refuse(member, "is a symbolic link to nothing, or to a name that cannot be one")
        if leads_outside(join(self._prefix, path), target):
            raise _refuse(member, f"is a symbolic link that leads out of the workspace: {shown(target)}")
        return target

    def _link(self, member: tarfile.TarInfo) -> bytes:
        target = _normal(member, _bytes(member.linkname))
        known = self._contents.items.get(target)
        if known is not None and known.kind is ItemKind.LINK:
            target, known = known.target, self._contents.items[known.target]
        if known is None or known.kind is not ItemKind.FILE:
            raise _refuse(member, f"is a hard link to {shown(target)}, which is no file that came before it")
        return target


def _members(stream: ArchiveStream) -> Iterator[tarfile.TarInfo]:
    """All members. What ``tarfile`` runs into is an ArchiveRefused, and so is what it would pass over."""
    try:
        stream.member(data=False)
        archive = tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8", errors="surrogateescape")
        while (member := archive.next()) is not None:
            setattr(archive, "members", [])  # noqa: B010 - it would keep them all; typeshed does not know of it
            _check_claims(archive, member)
            stream.member(data=True)
            yield member
            stream.member(data=False)
    except tarfile.TarError as error:
        raise ArchiveRefused(f"the archive cannot be understood: {error}") from error
    except (ValueError, ArithmeticError, RecursionError, EOFError, LookupError) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise ArchiveRefused(f"the archive cannot be understood: {type(error).__name__}") from error


def _check_claims(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """A member's data lies between its headers and the next one's; what is said for all members stays small."""
    if member.size < 0:
        raise _refuse(member, "has an impossible size")
    if sum(size for _, size in _extents(member)) > archive.offset - member.offset_data:
        raise _refuse(member, "has an impossible map of its holes")
    if sum(len(name) + len(text) for name, text in archive.pax_headers.items()) > HEADERS_MOST:
        raise ArchiveRefused(f"the archive has more than {HEADERS_MOST} bytes of global headers")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _path(member: tarfile.TarInfo) -> bytes:
    return _normal(member, _bytes(member.name))


def _normal(member: tarfile.TarInfo, name: bytes) -> bytes:
    """*name* without what means nothing; raises ArchiveRefused for what may not be."""
    if name.startswith(b"/"):
        raise _refuse(member, "has an absolute path")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _refuse(member, "has `..` in its path")
    if b"\0" in name or any(len(part) > NAME_MOST for part in parts):
        raise _refuse(member, "has a name that cannot be one")
    return b"/".join(parts)


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """The time, to the nanosecond where the archive has it."""
    try:
        seconds = Decimal(member.pax_headers.get("mtime", member.mtime))
        if -TIME_MOST < seconds < TIME_MOST:
            return int(seconds * 1_000_000_000)
    except (InvalidOperation, ValueError):
        pass
    raise _refuse(member, "has an impossible time")


def _extents(member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Where a file's data goes: pairs of offset and size."""
    extents: list[tuple[int, int]] | None = getattr(member, "sparse", None)  # typeshed takes it for a number
    if extents is None:
        return [(0, member.size)] if member.type in _FILES else []
    return [(start, size) for start, size in extents if size != 0]  # some formats fill their maps up with nothing


def _pieces(member: tarfile.TarInfo, stream: ArchiveStream) -> Iterator[Piece]:
    """The data of a member, and the holes between."""
    position = 0
    stream.seek(member.offset_data)
    for start, size in _extents(member):
        if start < position or start + size > member.size or size < 0:
            raise _refuse(member, "has an impossible map of its holes")
        if start > position:
            yield Piece(b"", start - position)
        position = start + size
        left = size
        while left > 0:
            data = stream.read(min(left, DATA_MOST))
            if not data:
                raise ArchiveRefused("the archive is cut short")
            yield Piece(data)
            left -= len(data)
    if position < member.size:
        yield Piece(b"", member.size - position)


def _refuse(member: tarfile.TarInfo, why: str) -> ArchiveRefused:
    name = _bytes(member.name)
    return ArchiveRefused(f"the archive's member {shown(name) or '(no name)'} {why}")
