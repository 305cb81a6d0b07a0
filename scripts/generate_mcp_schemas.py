"""Write the golden schemas of the MCP tools; with ``--check`` only say whether they are up to date."""

import json
import sys
from pathlib import Path

import anyio

from pyro_mcp.mcp_server.server import create_server

GOLDEN = Path(__file__).parents[1] / "tests" / "unit" / "mcp_server" / "golden" / "tools.json"


def schemas() -> str:
    """What ``tools/list`` answers, as JSON."""
    tools = anyio.run(create_server(profile="full").list_tools)
    listed = [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools]
    return json.dumps(listed, indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write or check; 1 if the file is not up to date."""
    if "--check" in sys.argv[1:]:
        if GOLDEN.read_text() == schemas():
            return 0
        sys.stdout.write(f"{GOLDEN} is not up to date: run scripts/generate_mcp_schemas.py\n")
        return 1
    GOLDEN.write_text(schemas())
    return 0


if __name__ == "__main__":
    sys.exit(main())
