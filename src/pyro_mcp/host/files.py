"""Atomic files and directories, and the translation of file errors."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_mcp.errors import NoSpace, StorageFault
from pyro_mcp.model import new_token

COPY_CHUNK = 1 << 20
CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
FULL = {errno.ENOSPC, errno.EDQUOT}
RAISE_FILE_LIMIT = "Raise the limit on the size of files (ulimit -f)."


@contextlib.contextmanager
def storage(doing: str) -> Iterator[None]:
    """Translate an OSError into NoSpace or StorageFault that says what was being done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        where = f": {error.filename}" if error.filename else ""
        if error.errno in FULL:
            raise NoSpace(f"no space left while {doing}{where}") from error
        if error.errno == errno.EFBIG:
            raise NoSpace(
                f"a file would be larger than this process may write: {doing}{where}", remedy=RAISE_FILE_LIMIT
            ) from error
        raise StorageFault(f"cannot go on {doing}{where}: {reason}") from error


def private_directory(path: Path) -> Path:
    """Make *path* (and its parents) a directory of mode 0700, and refuse one that belongs to somebody else."""
    with storage(f"preparing {path}"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid != os.geteuid():
            raise StorageFault(
                f"{path} belongs to uid {status.st_uid}, not to you (uid {os.geteuid()})",
                remedy="Set XDG_STATE_HOME or PYRO_ENVIRONMENT_CACHE_DIR to a directory of your own.",
            )
        if status.st_mode & 0o077:
            path.chmod(0o700)
    return path


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace *path* by *data* in one step; a reader sees the old content or the new, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial-{new_token()}")
    try:
        with storage(f"writing {path}"):
            with partial.open("xb") as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write *value* as sorted, indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in *path*; ``None`` when the file is absent or does not hold an object."""
    with storage(f"reading {path}"):
        try:
            value = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with storage(f"reading {path}"), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove_tree(path: Path) -> None:
    """Remove a directory of ours with all that is in it; one that is gone, or going by another's hand, is fine."""
    with storage(f"removing {path}"):
        while path.exists():
            with contextlib.suppress(FileNotFoundError):  # of an entry that somebody else has just removed
                shutil.rmtree(path)


def copy_sparse(source: Path, target: Path, *, mode: int = 0o600) -> None:
    """Copy a file, sharing its blocks where the filesystem can, and else keeping its holes."""
    with storage(f"copying {source} to {target}"), source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), mode)
        if not _reflink(reader.fileno(), writer.fileno()):
            _copy_extents(reader.fileno(), writer.fileno(), os.fstat(reader.fileno()).st_size)


def _reflink(reader: int, writer: int) -> bool:
    """Share all blocks (ioctl FICLONE, see ioctl_ficlone(2)); ``False`` where the filesystem cannot."""
    import fcntl

    try:
        fcntl.ioctl(writer, 0x40049409, reader)
    except OSError:
        return False
    return True


def _copy_extents(reader: int, writer: int, size: int) -> None:
    """Copy only the data extents (SEEK_DATA, SEEK_HOLE), and set the length."""
    os.ftruncate(writer, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data beyond this point
                return
            raise
        position = os.lseek(reader, start, os.SEEK_HOLE)
        while start < position:
            moved = _move(reader, writer, min(position - start, COPY_CHUNK * 64), start)
            if moved == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            start += moved


def _move(reader: int, writer: int, count: int, position: int) -> int:
    """Copy at most *count* bytes at *position*, inside the kernel where it can (not from one filesystem to another)."""
    try:
        return os.copy_file_range(reader, writer, count, position, position)
    except OSError as error:
        if error.errno not in CANNOT_COPY:
            raise
    return os.pwrite(writer, os.pread(reader, min(count, COPY_CHUNK), position), position)


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged user may still write on the filesystem of *path* or of its nearest existing parent."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    with storage(f"looking at the free space of {place}"):
        status = os.statvfs(place)
    return status.f_bavail * status.f_frsize
