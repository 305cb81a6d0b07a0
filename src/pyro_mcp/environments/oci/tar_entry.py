"""One member of a tar archive, and the names members may have."""

from dataclasses import dataclass, field

from pyro_mcp.errors import ImageRefused

PATH_BYTES_MOST = 4095  # PATH_MAX without its NUL
NAME_BYTES_MOST = 255
FILE, DIRECTORY, SYMLINK, LINK, CHARACTER, BLOCK, FIFO = range(7)
KIND_NAMES = ("file", "directory", "symbolic link", "hard link", "character device", "block device", "FIFO")


@dataclass(slots=True)
class Entry:
    """A member. *path* has no leading slash and no dots; empty is the root directory.

    *size* is the length of a file's content as it is read. *target*: what a symbolic link says, or the path a hard link
    names. *data*: pieces (offset, length) of a sparse file; the rest is zeros.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    data: list[tuple[int, int]] | None = None


def shown(path: bytes) -> str:
    """A name from an archive, safe to print."""
    return ascii(path.decode(errors="replace"))[:200]


def clean(raw: bytes) -> bytes:
    """*raw* relative to the root of the image, without ``.`` and empty parts.

    Raises ImageRefused for ``..`` and for names that no filesystem can hold.
    """
    if b"\0" in raw:
        raise ImageRefused(f"the name {shown(raw)} in a layer holds a NUL byte")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ImageRefused(f"the name {shown(raw)} in a layer leads upwards (..)")
    path = b"/".join(parts)
    if len(path) > PATH_BYTES_MOST or any(len(part) > NAME_BYTES_MOST for part in parts):
        raise ImageRefused(f"the name {shown(raw)} in a layer is too long")
    return path
