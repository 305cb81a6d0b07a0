"""The MCP server. ``pyro_mcp.create_server`` makes it; only ``server`` and what it needs import the MCP SDK."""
