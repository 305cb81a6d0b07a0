"""Processes of ours that outlive the pyro that starts them: the keeper, and the publishers of tasks."""

import os
import sys
from collections.abc import Sequence

from pyro_mcp.host.proc import spawn_detached
from pyro_mcp.paths import Paths

# What they need of our environment, besides what every program of ours gets.
PASSED = ("PYTHONPATH", "PYTHONUSERBASE", "VIRTUAL_ENV", "XDG_RUNTIME_DIR")
_children: set[int] = set()


def spawn(module: str, words: Sequence[str], paths: Paths, *, pass_fds: Sequence[int]) -> int:
    """Start *module* with *words* and the three roots of *paths*; its pid. Raises ProgramMissing or HostFault."""
    collect()
    env = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith("PYRO_")}
    roots = (str(paths.state), str(paths.cache), str(paths.environments))
    # -P: nothing is imported from the directory the user happens to be in.
    process = spawn_detached([sys.executable, "-P", "-m", module, *words, *roots], pass_fds=pass_fds, env=env)
    process.returncode = 0  # it may outlive us
    _children.add(process.pid)
    return process.pid


def collect() -> None:
    """Reap those this process has started and that have ended."""
    for child in list(_children):
        try:
            if os.waitpid(child, os.WNOHANG)[0] == child:
                _children.discard(child)
        except ChildProcessError:
            _children.discard(child)
