"""The Python SDK: ``from pyro_mcp import Pyro``."""

from pyro_mcp.guest.control import Control
from pyro_mcp.host.progress import Progress
from pyro_mcp.sdk.pyro import Pyro

__all__ = ["Control", "Progress", "Pyro"]
