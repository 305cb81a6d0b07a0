"""Settings: one table, one cascade (flag, environment variable, default)."""

from pyro_mcp.config.settings import SETTINGS, Setting, Settings, load, unknown_variables

__all__ = ["SETTINGS", "Setting", "Settings", "load", "unknown_variables"]
