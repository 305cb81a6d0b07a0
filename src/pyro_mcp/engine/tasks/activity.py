"""Who uses a task, and when it was used last: a lock that every call on it shares, on a file whose time is the answer.

It ends with its holder, however that ends. So a task is never taken for idle while a call on it goes on.
"""

import contextlib
import os
from collections.abc import Iterator

from pyro_mcp.errors import UnknownTask
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.locks import locked, try_lock
from pyro_mcp.paths import TaskPaths

ENDING_SECONDS = 20.0  # how long somebody may hold the lock alone: while the task is ended


@contextlib.contextmanager
def in_use(paths: TaskPaths) -> Iterator[None]:
    """A call on the task goes on as long as the block does. Raises UnknownTask when the task is gone."""
    if not paths.directory.is_dir():
        raise UnknownTask(f"there is no task {paths.directory.name}")
    with locked(paths.used, Deadline.after(ENDING_SECONDS), shared=True) as descriptor:
        with storage(f"marking {paths.used}"):
            os.utime(descriptor)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.utime(descriptor)


@contextlib.contextmanager
def if_unused(paths: TaskPaths) -> Iterator[bool]:
    """Whether nobody uses the task now; if so, nobody can begin to while the block runs."""
    lock = try_lock(paths.used) if paths.directory.is_dir() else None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def last_used(paths: TaskPaths) -> float | None:
    """When the last call on the task began or ended, Unix seconds; ``None`` when that is not known."""
    try:
        return paths.used.stat().st_mtime
    except OSError:
        return None
