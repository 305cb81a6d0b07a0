"""File locks (flock): they end with their holder, however it ends."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pyro_mcp.errors import Busy
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.wait import attempts


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Take the lock at *path* now: its descriptor (close it to let go), or ``None`` when somebody holds it.

    The file may be removed by its holder, so a lock counts only while the path still names the locked file.
    """
    with storage(f"locking {path}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _still_named(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def is_held(path: Path) -> bool | None:
    """Whether somebody holds the lock at *path*, which may be another user's file; ``None`` when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _still_named(path: Path, descriptor: int) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


@contextlib.contextmanager
def locked(
    path: Path,
    deadline: Deadline,
    *,
    shared: bool = False,
    waiting: Callable[[], None] | None = None,
) -> Iterator[int]:
    """Hold the lock at *path*; call *waiting* once if somebody else has it. Raises Busy at the *deadline*."""
    for attempt in attempts(deadline):
        descriptor = try_lock(path, shared=shared)
        if descriptor is not None:
            break
        if attempt == 0 and waiting is not None:
            waiting()
    else:
        raise Busy(f"another process held {path} for too long")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
