"""Environments: the catalog, how one is made, and the cache they live in."""

from pyro_mcp.environments.facade import Environments
from pyro_mcp.environments.installed import Installed

__all__ = ["Environments", "Installed"]
