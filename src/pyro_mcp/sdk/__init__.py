"""The Python SDK: ``from pyro_mcp import Pyro``. ``AsyncPyro`` is in ``pyro_mcp.sdk.aio``, which loads anyio."""

from pyro_mcp.guest.control import Control
from pyro_mcp.host.progress import Progress
from pyro_mcp.sdk.handles import Task, Vm
from pyro_mcp.sdk.pyro import Pyro

__all__ = ["Control", "Progress", "Pyro", "Task", "Vm"]
