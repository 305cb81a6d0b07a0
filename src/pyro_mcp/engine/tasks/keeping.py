"""Making sure that the keeper runs while there are tasks. Never two: it lives under a lock that it is born with."""

import os

from pyro_mcp.engine import background
from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import storage
from pyro_mcp.host.locks import try_lock
from pyro_mcp.paths import Paths

MODULE = "pyro_mcp.engine.tasks.keeper"


def ensure_keeper(paths: Paths) -> bool:
    """Start the keeper unless it runs; whether it was started. Never raises: a task works without it, too.

    The lock is taken here and handed to the new process, so there is no moment in which two could start.
    """
    background.collect()
    try:
        lock = try_lock(paths.keeper_lock)
        if lock is None:
            return False
        try:
            _spawn(paths, lock)
        finally:
            os.close(lock)
    except PyroError:
        return False
    return True


def _spawn(paths: Paths, lock: int) -> None:
    pid = background.spawn(MODULE, [str(lock)], paths, pass_fds=[lock])
    with storage(f"writing {paths.keeper_lock}"):
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % pid, 0)
