"""Tar archives read as a stream, strictly: v7, ustar, pax, GNU, star; sparse files; any byte in a name.

The standard library's reader ends silently at a damaged header, reads extended headers of any size into memory, and
keeps every member it has seen. A layer comes from a stranger, so none of that will do.
"""

import io
import struct
from collections.abc import Iterator

from pyro_mcp.environments.oci import tar_sparse
from pyro_mcp.environments.oci.tar_entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Entry,
    clean,
    shown,
)
from pyro_mcp.environments.oci.tar_numbers import decimal, number, records, text_of, xattr
from pyro_mcp.errors import ImageRefused

BLOCK_SIZE = 512
CHUNK = 1 << 18
EXTENDED_BYTES_MOST = 1 << 20
EXTENDED_MOST = 16
SIZE_MOST = 1 << 50
LINK_BYTES_MOST = 4095
MODE_MASK = 0o7777
ID_MOST = 0xFFFFFFFE
DEVICE_MOST = (0xFFF, 0xFFFFF)
KINDS = {
    b"\0": FILE, b"0": FILE, b"7": FILE, b"S": FILE, b"1": LINK, b"2": SYMLINK,
    b"3": CHARACTER, b"4": BLOCK, b"5": DIRECTORY, b"6": FIFO, b"D": DIRECTORY,
}  # fmt: skip
WITH_DATA = (b"\0", b"0", b"7", b"S", b"D")
ZEROS = bytes(BLOCK_SIZE)
Records = list[tuple[bytes, bytes]]


class TarReader:
    """The members of one archive, in order. What a member's content is not read of is passed over."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self._left = 0  # stored bytes of the present member, with their padding
        self._stored = 0
        self._global: dict[bytes, bytes] = {}
        self._used = False  # whether a member was seen: only then a stream may end without an end mark

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._drain()

    def content(self, entry: Entry) -> Iterator[bytes]:
        """The content of *entry*, the member at hand, its holes filled with zeros."""
        if entry.data is None:
            yield from self._take(entry.size)
            return
        at = 0
        for offset, length in entry.data:
            yield from _zeros(offset - at)
            yield from self._take(length)
            at = offset + length
        yield from _zeros(entry.size - at)

    def _take(self, count: int) -> Iterator[bytes]:
        if count > self._left:
            raise ImageRefused("a layer is no tar archive: a file says it is larger than it is")
        while count:
            data = self._stream.read(min(count, CHUNK))
            if not data:
                raise ImageRefused("a layer is cut off in the middle of a file")
            count -= len(data)
            self._left -= len(data)
            yield data

    def _block(self) -> bytes:
        """A block that belongs to the member at hand."""
        data = self._stream.read(BLOCK_SIZE)
        if len(data) != BLOCK_SIZE:
            raise ImageRefused("a layer is cut off")
        return data

    def _next(self) -> Entry | None:
        for _ in self._take(self._left):
            pass
        name, link, found = b"", b"", Records()
        for _ in range(EXTENDED_MOST):
            header = self._header()
            if header is None:
                if name or link or found:
                    raise ImageRefused("a layer is cut off")
                return None
            kind = header[156:157]
            if kind in (b"x", b"X"):
                found += records(self._extended(header))
            elif kind == b"g":
                self._global.update(records(self._extended(header)))
            elif kind == b"L":
                name = text_of(self._extended(header))
            elif kind == b"K":
                link = text_of(self._extended(header))
            elif kind == b"V":
                self._extended(header)
            else:
                return self._member(header, name, link, found)
        raise ImageRefused("a layer has too many headers before a file")

    def _header(self) -> bytes | None:
        """The next header, ``None`` at the end of the archive."""
        data = self._stream.read(BLOCK_SIZE)
        if data == ZEROS or (not data and self._used):
            return None
        if len(data) != BLOCK_SIZE:
            raise ImageRefused("a layer is cut off" if self._used else "a layer is no tar archive")
        if not _checksum_holds(data):
            raise ImageRefused("a layer is no tar archive: the checksum of a header is wrong")
        self._used = True
        return data

    def _extended(self, header: bytes) -> bytes:
        size = number(header[124:136])
        if not 0 <= size <= EXTENDED_BYTES_MOST:
            raise ImageRefused(f"a layer has an extended header of more than {EXTENDED_BYTES_MOST} bytes")
        self._left = _padded(size)
        data = b"".join(self._take(size))
        for _ in self._take(self._left):
            pass
        return data

    def _member(self, header: bytes, name: bytes, link: bytes, found: Records) -> Entry:
        flag = header[156:157]
        own = dict(found)
        values = {**self._global, **own}
        raw = own.get(b"GNU.sparse.name") or values.get(b"path") or name or _name(header)
        kind = KINDS.get(flag)
        if kind is None:
            raise ImageRefused(f"{shown(raw)} in a layer is of a kind that is not known: {flag!r}")
        if kind == FILE and raw.endswith(b"/"):  # as v7 says that it is a directory
            kind = DIRECTORY
        stored = decimal(values[b"size"]) if b"size" in values else number(header[124:136])
        if not 0 <= stored <= SIZE_MOST:
            raise ImageRefused(f"{shown(raw)} in a layer has no possible size")
        self._stored = stored if flag in WITH_DATA else 0
        self._left = _padded(self._stored)
        entry = Entry(
            path=clean(raw),
            kind=kind,
            mode=number(header[100:108]) & MODE_MASK,
            uid=_identity(values.get(b"uid"), header[108:116]),
            gid=_identity(values.get(b"gid"), header[116:124]),
            mtime=_time(values.get(b"mtime"), header[136:148]),
            xattrs=dict(pair for pair in (xattr(*record) for record in values.items()) if pair is not None),
        )
        if kind == FILE:
            self._measure(entry, header, found, own)
        else:
            _describe(entry, header, values.get(b"linkpath") or link or text_of(header[157:257]))
        return entry

    def _measure(self, entry: Entry, header: bytes, found: Records, own: dict[bytes, bytes]) -> None:
        """Set the size of a file, and its pieces if it is sparse."""
        entry.size = self._stored
        if header[156:157] == b"S":
            entry.size, pieces = tar_sparse.old_gnu(header, self._block)
        elif own.get(b"GNU.sparse.major") == b"1":
            used, pieces = tar_sparse.in_data(lambda: b"".join(self._take(BLOCK_SIZE)))
            self._stored -= used
        elif b"GNU.sparse.map" in own or b"GNU.sparse.numblocks" in own:
            pieces = tar_sparse.in_records(found)
        else:
            return
        real = own.get(b"GNU.sparse.realsize") or own.get(b"GNU.sparse.size")
        if real is not None:
            entry.size = decimal(real)
        if not 0 <= entry.size <= SIZE_MOST:
            raise ImageRefused(f"{shown(entry.path)} in a layer has no possible size")
        entry.data = tar_sparse.check(pieces, entry.size, self._stored)

    def _drain(self) -> None:
        """Read what follows the end mark: padding, and nothing of it counts."""
        while self._stream.read(CHUNK):
            pass


def _describe(entry: Entry, header: bytes, target: bytes) -> None:
    """Set what a member without content has."""
    if entry.kind == LINK:
        entry.target = clean(target)
    elif entry.kind == SYMLINK:
        if not target or b"\0" in target or len(target) > LINK_BYTES_MOST:
            raise ImageRefused(f"{shown(entry.path)} in a layer is a symbolic link to nothing that can be named")
        entry.target = target
    elif entry.kind in (CHARACTER, BLOCK):
        entry.major, entry.minor = number(header[329:337]), number(header[337:345])
        if not 0 <= entry.major <= DEVICE_MOST[0] or not 0 <= entry.minor <= DEVICE_MOST[1]:
            raise ImageRefused(f"{shown(entry.path)} in a layer is a device with impossible numbers")


def _checksum_holds(header: bytes) -> bool:
    stated = number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    return stated == sum(rest) or stated == sum(struct.unpack("512b", rest))  # old programs added signed bytes


def _name(header: bytes) -> bytes:
    """The name in the header itself, with the prefix where the dialect has one."""
    name = text_of(header[:100])
    if header[257:263] != b"ustar\0":  # v7 has none, GNU keeps other things there
        return name
    prefix = text_of(header[345:476] if header[508:512] == b"tar\0" else header[345:500])
    return prefix + b"/" + name if prefix else name


def _identity(value: bytes | None, field: bytes) -> int:
    """A user's or a group's number."""
    found = decimal(value) if value is not None else number(field)
    if not 0 <= found <= ID_MOST:
        raise ImageRefused(f"a file in a layer belongs to {found}, which is no possible user or group")
    return found


def _time(value: bytes | None, field: bytes) -> int:
    """Seconds since 1970, within what a squashfs can hold."""
    found = decimal(value) if value is not None else number(field)
    return min(max(found, 0), 0xFFFFFFFF)


def _padded(size: int) -> int:
    return size + -size % BLOCK_SIZE


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        piece = bytes(min(count, CHUNK))
        count -= len(piece)
        yield piece
