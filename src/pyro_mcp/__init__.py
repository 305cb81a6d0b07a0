"""pyro: commands in ephemeral microVMs. ``from pyro_mcp import Pyro``."""

from typing import TYPE_CHECKING

__version__ = "2.3.0"
__all__ = [
    "AsyncPyro",
    "Control",
    "Progress",
    "Pyro",
    "PyroError",
    "VmManager",
    "__version__",
    "create_server",
]

if TYPE_CHECKING:
    from pyro_mcp.errors import PyroError
    from pyro_mcp.mcp_server.server import create_server
    from pyro_mcp.sdk import Control, Progress, Pyro
    from pyro_mcp.sdk import Pyro as VmManager
    from pyro_mcp.sdk.aio import AsyncPyro

# name: the module that has it, and its name there
_PLACES = {
    "AsyncPyro": ("pyro_mcp.sdk.aio", "AsyncPyro"),
    "Control": ("pyro_mcp.sdk", "Control"),
    "Progress": ("pyro_mcp.sdk", "Progress"),
    "Pyro": ("pyro_mcp.sdk", "Pyro"),
    "PyroError": ("pyro_mcp.errors", "PyroError"),
    "VmManager": ("pyro_mcp.sdk", "Pyro"),
    "create_server": ("pyro_mcp.mcp_server.server", "create_server"),
}


def __getattr__(name: str) -> object:
    """Load the SDK and the MCP server on first use, so that importing the package stays cheap."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # here, because `pyro --version` does without it

    module, attribute = _PLACES[name]
    found: object = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
