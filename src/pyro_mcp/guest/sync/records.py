"""The records in which files travel (docs/protocol.md). Pure: no input, no output.

A record names its place by the number of a directory that came before it and one name in it, so none can say ``..`` or
lead through a symbolic link.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

from pyro_mcp.errors import GuestProtocol

NAME_MOST: Final = 255
TARGET_MOST: Final = 4095
PATH_MOST: Final = 4095
IMPLIED: Final = 1
DATA_HEAD: Final = 5
HOLE_HEAD: Final = 9

_HEAD = struct.Struct(">BBHIqIIH")
_DATA = struct.Struct(">BI")
_HOLE = struct.Struct(">BQ")
_SIZE = struct.Struct(">Q")
_LENGTH = struct.Struct(">H")
_LINK = struct.Struct(">IH")
NO_BYTES: Final = memoryview(b"")


class Kind(IntEnum):
    """What a record is. OTHER: a socket, FIFO or device, which is named and never carried."""

    DIRECTORY = 1
    FILE = 2
    DATA = 3
    HOLE = 4
    SYMLINK = 5
    LINK = 6
    REMOVE = 7
    ATTRIBUTES = 8
    OTHER = 9


class Record(NamedTuple):
    """One record. *data* is a view into the frame: use it before the next frame is taken.

    *size* is a file's or a hole's; *target* a symbolic link's text, or the name in *target_dir* of a hard link's file.
    """

    kind: Kind
    dir: int = 0
    name: bytes = b""
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    target_dir: int = 0
    data: memoryview = NO_BYTES
    flags: int = 0
    uid: int = 0
    gid: int = 0


def valid_name(name: bytes) -> bool:
    """Whether *name* can stand in a directory."""
    return 0 < len(name) <= NAME_MOST and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


def valid_target(target: bytes) -> bool:
    """Whether *target* can be the text of a symbolic link."""
    return 0 < len(target) <= TARGET_MOST and b"\0" not in target


def pack(record: Record) -> bytes:
    """The bytes of a record that is not DATA."""
    kind, name = record.kind, record.name
    if kind is Kind.HOLE:
        return _HOLE.pack(kind, record.size)
    head = _HEAD.pack(kind, record.flags, record.mode, record.dir, record.mtime_ns, record.uid, record.gid, len(name))
    if kind is Kind.FILE:
        return head + name + _SIZE.pack(record.size)
    if kind is Kind.SYMLINK:
        return head + name + _LENGTH.pack(len(record.target)) + record.target
    if kind is Kind.LINK:
        return head + name + _LINK.pack(record.target_dir, len(record.target)) + record.target
    return head + name


def data_head(length: int) -> bytes:
    """What comes before *length* bytes of a file's content."""
    return _DATA.pack(Kind.DATA, length)


def unpack(payload: memoryview) -> Iterator[Record]:
    """The records of a frame; raises GuestProtocol for what is none."""
    start, end = 0, len(payload)
    while start < end:
        kind = payload[start]
        try:
            if kind == Kind.DATA:
                record, start = _data(payload, start)
            elif kind == Kind.HOLE:
                record, start = Record(Kind.HOLE, size=_HOLE.unpack_from(payload, start)[1]), start + HOLE_HEAD
            else:
                record, start = _named(payload, start)
        except struct.error:
            _malformed("is cut short")
        yield record


def _data(payload: memoryview, start: int) -> tuple[Record, int]:
    length = _DATA.unpack_from(payload, start)[1]
    begin = start + DATA_HEAD
    data = payload[begin : begin + length]
    if length == 0 or len(data) != length:
        _malformed("is cut short")
    return Record(Kind.DATA, data=data), begin + length


def _named(payload: memoryview, start: int) -> tuple[Record, int]:
    number, flags, mode, parent, mtime_ns, uid, gid, length = _HEAD.unpack_from(payload, start)
    if not Kind.DIRECTORY <= number <= Kind.OTHER:
        _malformed(f"has the unknown kind {number}")
    kind = Kind(number)
    name, at = _text(payload, start + _HEAD.size, length)
    if not valid_name(name):
        _malformed("has a name that cannot be one")
    size, target, target_dir = 0, b"", 0
    if kind is Kind.FILE:
        size = _SIZE.unpack_from(payload, at)[0]
        at += _SIZE.size
    elif kind is Kind.SYMLINK:
        target, at = _text(payload, at + _LENGTH.size, _LENGTH.unpack_from(payload, at)[0])
        if not valid_target(target):
            _malformed("has a link text that cannot be one")
    elif kind is Kind.LINK:
        target_dir, length = _LINK.unpack_from(payload, at)
        target, at = _text(payload, at + _LINK.size, length)
        if not valid_name(target):
            _malformed("has a name that cannot be one")
    return Record(kind, parent, name, mode, mtime_ns, size, target, target_dir, NO_BYTES, flags, uid, gid), at


def _text(payload: memoryview, start: int, length: int) -> tuple[bytes, int]:
    text = bytes(payload[start : start + length])
    if len(text) != length:
        _malformed("is cut short")
    return text, start + length


def _malformed(what: str) -> NoReturn:
    raise GuestProtocol(f"the guest sent a record that {what}")
