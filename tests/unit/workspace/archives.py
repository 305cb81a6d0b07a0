"""Archives for tests: honest ones, and a corpus of hostile ones."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

REFUSED = "archive_refused"
LIMIT = "invalid_request"


def member(
    name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0, **fields: object
) -> tarfile.TarInfo:
    """The header of a member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, link, size, 1_700_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A whole archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as archive:
        for one in members:
            if isinstance(one, tuple):
                info, content = one
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                archive.addfile(one)
    return out.getvalue()


def raw(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """One header block, byte by byte, with a right checksum: for what ``tarfile`` would not write."""
    block = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s6s2s247x",
            name,
            b"0000644",
            b"0000000",
            b"0000000",
            b"%011o" % size,
            b"00000000000",
            b" " * 8,
            kind,
            link,
            b"ustar\0",
            b"00",
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """A PAX header with these records."""
    return raw(b"pax", len(records), kind) + records + bytes(-len(records) % 512)


def corrupt(packed: bytes) -> bytes:
    """Some bytes in the middle are lost."""
    return packed[:40] + bytes(40) + packed[80:]


END = bytes(1024)
A = member("a")
FILE = tar((member("ok"), b"fine"), (member("d/f"), b"x" * 3000))

# name, bytes (a callable: made when needed), what it is refused with, and what the message names
HOSTILE: list[tuple[str, Callable[[], bytes], str, str]] = [
    ("absolute path", lambda: tar(member("/etc/passwd")), REFUSED, "absolute path"),
    ("absolute path by pax", lambda: pax(b"20 path=/etc/shadow\n") + raw(b"ok") + END, REFUSED, "absolute path"),
    ("dot dot", lambda: tar(member("../../etc/passwd")), REFUSED, r"`\.\.` in its path"),
    ("dot dot inside", lambda: tar(member("a/../b")), REFUSED, r"`\.\.` in its path"),
    ("dot dot alone", lambda: tar(member("..", tarfile.DIRTYPE)), REFUSED, r"`\.\.` in its path"),
    ("link that points out", lambda: tar(member("d/l", tarfile.SYMTYPE, link="../../x")), REFUSED, "leads out"),
    ("link that comes back in", lambda: tar(member("l", tarfile.SYMTYPE, link="../workspace/x")), REFUSED, "leads out"),
    (
        "link then file through it",
        lambda: tar(member("l", tarfile.SYMTYPE, link="/etc"), member("l/passwd")),
        REFUSED,
        "lies below l, which is a symbolic link",
    ),
    (
        "link inside then file through it",
        lambda: tar(member("d", tarfile.DIRTYPE), member("l", tarfile.SYMTYPE, link="d"), member("l/x")),
        REFUSED,
        "lies below l",
    ),
    (
        "file then link in its place",
        lambda: tar(member("l/x"), member("l", tarfile.SYMTYPE, link="/etc")),
        REFUSED,
        "twice",
    ),
    ("link to nothing", lambda: tar(member("l", tarfile.SYMTYPE)), REFUSED, "symbolic link to nothing"),
    ("hard link out", lambda: tar(member("l", tarfile.LNKTYPE, link="../../etc/passwd")), REFUSED, r"`\.\.`"),
    ("hard link absolute", lambda: tar(member("l", tarfile.LNKTYPE, link="/etc/passwd")), REFUSED, "absolute"),
    (
        "hard link to no member",
        lambda: tar(member("l", tarfile.LNKTYPE, link="etc/passwd")),
        REFUSED,
        "no file that came before",
    ),
    (
        "hard link to a later member",
        lambda: tar(member("l", tarfile.LNKTYPE, link="a"), A),
        REFUSED,
        "no file that came before",
    ),
    (
        "hard link to a symbolic link",
        lambda: tar(member("s", tarfile.SYMTYPE, link="/etc/passwd"), member("l", tarfile.LNKTYPE, link="s")),
        REFUSED,
        "no file",
    ),
    ("hard link to itself", lambda: tar(member("l", tarfile.LNKTYPE, link="l")), REFUSED, "no file that came before"),
    ("character device", lambda: tar(member("d", tarfile.CHRTYPE, devmajor=1, devminor=3)), REFUSED, "is a device"),
    ("block device", lambda: tar(member("d", tarfile.BLKTYPE)), REFUSED, "is a device"),
    ("fifo", lambda: tar(member("f", tarfile.FIFOTYPE)), REFUSED, "is a FIFO"),
    ("unknown kind", lambda: raw(b"x", 0, b"Z") + END, REFUSED, "unknown kind"),
    ("duplicate file", lambda: tar(member("a"), member("./a")), REFUSED, "twice"),
    ("file and directory", lambda: tar(member("a"), member("a", tarfile.DIRTYPE)), REFUSED, "twice"),
    ("below a file", lambda: tar(member("a"), member("a/b")), REFUSED, "lies below a, which is a file"),
    ("no name", lambda: pax(b"8 path=\n") + raw(b"") + END, REFUSED, "no name|cannot be understood"),
    ("NUL in a pax name", lambda: pax(b"13 path=a\0bc\n") + raw(b"ok") + END, REFUSED, "cannot be one"),
    ("long name", lambda: tar(member("n" * 256)), REFUSED, "cannot be one"),
    ("long path", lambda: tar(member("/".join(["d" * 200] * 25))), REFUSED, "too long"),
    (
        "negative pax size",
        lambda: pax(b"12 size=-512\n") + raw(b"ok") + END,
        REFUSED,
        "impossible size|another|cannot be understood",
    ),
    (
        "huge pax size",
        lambda: pax(b"29 size=99999999999999999999\n") + raw(b"ok") + END,
        REFUSED + "|" + LIMIT,
        "more than|cut short|cannot",
    ),
    (
        "time without end",
        lambda: pax(b"13 mtime=inf\n") + raw(b"ok") + END,
        REFUSED,
        "impossible time|cannot be understood",
    ),
    ("time far away", lambda: pax(b"23 mtime=9999999999999\n") + raw(b"ok") + END, REFUSED, "impossible time"),
    (
        "endless pax header",
        lambda: gzip.compress(raw(b"pax", 1 << 33, b"x") + bytes(8 << 20), 1),
        REFUSED,
        "bytes of headers",
    ),
    ("endless long name", lambda: raw(b"././@LongLink", 1 << 33, b"L") + bytes(1 << 20), REFUSED, "bytes of headers"),
    (
        "chain of long names",
        lambda: b"".join(raw(b"././@LongLink", 5, b"L") + b"name\0" + bytes(507) for _ in range(5000)) + END,
        REFUSED,
        "headers|cannot be understood",
    ),
    (
        "map of holes outside",
        lambda: (
            pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.realsize=5\n")
            + raw(b"s", 512)
            + b"1\n999999\n100\n".ljust(512, b"\0")
            + END
        ),
        REFUSED,
        "holes|impossible",
    ),
    (
        "endless map of holes",
        lambda: (
            pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
            + raw(b"s", 1 << 30)
            + b"99999999\n"
            + b"1\n" * (2 << 20)
        ),
        REFUSED,
        "headers|cannot be understood",
    ),
    ("garbage after a member", lambda: FILE[:1024] + b"\xff" * 512 + FILE[1024:], REFUSED, "cut short, or damaged"),
    (
        "header with a bit wrong",
        lambda: FILE[:1030] + bytes([FILE[1030] ^ 1]) + FILE[1031:],
        REFUSED,
        "cut short, or damaged",
    ),
    ("cut in a header", lambda: FILE[:1300], REFUSED, "cut short"),
    ("cut between members", lambda: FILE[:1024], REFUSED, "cut short"),
    ("cut in content", lambda: FILE[:2000], REFUSED, "cut short|unexpected end"),
    ("no archive", lambda: b"hello, world" * 100, REFUSED, "cannot be understood"),
    ("nothing", lambda: b"", REFUSED, "cannot be understood|cut short"),
    ("truncated gzip", lambda: gzip.compress(FILE)[:-30], REFUSED, "cut short|damaged"),
    ("gzip without its sum", lambda: gzip.compress(FILE)[:-6], REFUSED, "cut short"),
    (
        "corrupt gzip",
        lambda: corrupt(gzip.compress(bytes(range(256)) * 40 + FILE)),
        REFUSED,
        "damaged|cannot",
    ),
    ("gzip with a wrong sum", lambda: gzip.compress(FILE)[:-8] + bytes(8), REFUSED, "damaged"),
    ("gzip goes on without end", lambda: gzip.compress(FILE + bytes(80 << 20), 1), REFUSED, "goes on after its end"),
    ("10 GB of zeroes", lambda: gzip.compress(raw(b"z", 7 << 30) + bytes(1 << 20), 1), REFUSED, "cut short"),
    (
        "global headers",
        lambda: (
            b"".join(
                pax(b"%d k%d=%s\n" % (300_013 if n < 10 else 300_014, n, b"v" * 300_000), b"g") + raw(b"f%d" % n)
                for n in range(9)
            )
            + END
        ),
        REFUSED,
        "global headers|headers|cannot",
    ),
]


def bomb(path: Path, size: int) -> None:
    """An archive with one file of *size* zero bytes, packed."""
    with gzip.open(path, "wb", 6) as out:
        info = member("zeroes", size=size)
        info.size = size
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            out.write(block)
        out.write(END)


def crowd(count: int) -> Iterator[bytes]:
    """The headers of many empty files."""
    for number in range(count):
        yield raw(b"f%d" % number)
    yield END
