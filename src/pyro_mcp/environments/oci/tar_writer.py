"""Tar archives written for sqfstar: ustar, and an extended header for what ustar cannot hold."""

from collections.abc import Callable

from pyro_mcp.environments.oci.tar_entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SYMLINK, Entry

BLOCK_SIZE = 512
END = bytes(2 * BLOCK_SIZE)
FLAGS = {
    FILE: b"0", LINK: b"1", SYMLINK: b"2", CHARACTER: b"3", BLOCK: b"4", DIRECTORY: b"5", FIFO: b"6",
}  # fmt: skip
NAME_MOST = 100
ID_MOST = 0o7777777
SIZE_MOST = 0o77777777777


def header(entry: Entry) -> bytes:
    """The blocks before the content of *entry*."""
    records = [(b"SCHILY.xattr." + name, value) for name, value in sorted(entry.xattrs.items())]
    path = entry.path + b"/" if entry.kind == DIRECTORY else entry.path
    for keyword, text in ((b"path", path), (b"linkpath", entry.target)):
        if len(text) > NAME_MOST:
            records.append((keyword, text))
    for keyword, value, most in (
        (b"uid", entry.uid, ID_MOST),
        (b"gid", entry.gid, ID_MOST),
        (b"size", entry.size, SIZE_MOST),
    ):
        if value > most:
            records.append((keyword, b"%d" % value))
    own = _block(entry, path)
    if not records:
        return own
    data = b"".join(_record(keyword, value) for keyword, value in records)
    # A name of its own kind, or a reader without extended headers would write all of them to one file.
    extended = Entry(b"PaxHeaders/x", FILE, 0o644, 0, 0, 0, len(data))
    return _block(extended, extended.path, b"x") + data + padding(len(data)) + own


def padding(size: int) -> bytes:
    """The zeros after *size* bytes of content."""
    return bytes(-size % BLOCK_SIZE)


def add(write: Callable[[bytes], object], entry: Entry, content: bytes = b"") -> None:
    """Write a member whose content is at hand."""
    write(header(entry) + content + padding(len(content)))


def _record(keyword: bytes, value: bytes) -> bytes:
    """``length keyword=value``, where the length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _block(entry: Entry, path: bytes, flag: bytes = b"") -> bytes:
    size = entry.size if entry.kind == FILE and entry.size <= SIZE_MOST else 0
    uid, gid = (value if value <= ID_MOST else 0 for value in (entry.uid, entry.gid))
    fields = (
        path[:NAME_MOST].ljust(NAME_MOST, b"\0"),
        b"%07o\0%07o\0%07o\0" % (entry.mode, uid, gid),
        b"%011o\0%011o\0" % (size, entry.mtime),
        b"        ",
        flag or FLAGS[entry.kind],
        entry.target[:NAME_MOST].ljust(NAME_MOST, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        b"%07o\0%07o\0" % (entry.major, entry.minor),
    )
    block = b"".join(fields).ljust(BLOCK_SIZE, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
