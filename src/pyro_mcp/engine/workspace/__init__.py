"""A task's files: push a directory or an archive into ``/workspace``, pull files back.

``push`` and ``pull`` are all a caller needs; they need nothing but a way to the agent of a started machine.
"""

from pyro_mcp.engine.workspace.options import (
    PullOptions,
    PullResult,
    PushOptions,
    SyncResult,
)
from pyro_mcp.engine.workspace.pull import pull
from pyro_mcp.engine.workspace.push import push

__all__ = ["PullOptions", "PullResult", "PushOptions", "SyncResult", "pull", "push"]
