"""Making sure that the keeper runs while there are tasks. Never two: it lives under a lock that it is born with."""

import os
import sys

from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import storage
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.proc import spawn_detached
from pyro_mcp.paths import Paths

MODULE = "pyro_mcp.engine.tasks.keeper"
# What the keeper needs of our environment, besides what every program of ours gets.
PASSED = ("PYTHONPATH", "PYTHONUSERBASE", "VIRTUAL_ENV", "XDG_RUNTIME_DIR")
_children: set[int] = set()


def ensure_keeper(paths: Paths) -> bool:
    """Start the keeper unless it runs; whether it was started. Never raises: a task works without it, too.

    The lock is taken here and handed to the new process, so there is no moment in which two could start.
    """
    _collect()
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


def _collect() -> None:
    """Reap the keepers this process has started and that have ended."""
    for child in list(_children):
        try:
            if os.waitpid(child, os.WNOHANG)[0] == child:
                _children.discard(child)
        except ChildProcessError:
            _children.discard(child)


def _spawn(paths: Paths, lock: int) -> None:
    env = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith("PYRO_")}
    roots = (str(paths.state), str(paths.cache), str(paths.environments))
    # -P: nothing is imported from the directory the user happens to be in.
    argv = [sys.executable, "-P", "-m", MODULE, str(lock), *roots]
    process = spawn_detached(argv, pass_fds=[lock], env=env)
    with storage(f"writing {paths.keeper_lock}"):
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % process.pid, 0)
    process.returncode = 0  # it may outlive us
    _children.add(process.pid)
