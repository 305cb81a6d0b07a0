"""pyro: commands in ephemeral microVMs. ``from pyro_mcp import Pyro``."""

from typing import TYPE_CHECKING

__version__ = "2.3.0"
__all__ = ["Pyro", "__version__", "create_server"]

if TYPE_CHECKING:
    from pyro_mcp.mcp_server.server import create_server
    from pyro_mcp.sdk import Pyro


def __getattr__(name: str) -> object:
    """Load the SDK and the MCP server on first use, so that importing the package stays cheap."""
    if name == "Pyro":
        from pyro_mcp.sdk import Pyro

        return Pyro
    if name == "create_server":
        from pyro_mcp.mcp_server.server import create_server

        return create_server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
