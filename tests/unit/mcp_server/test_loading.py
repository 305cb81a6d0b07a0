"""Who loads the MCP SDK: only who wants a server."""

import subprocess
import sys

import pytest

import pyro_mcp
from pyro_mcp import Pyro
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.paths import Paths

LOADED = "import sys; {}; print(sorted({{'mcp', 'pydantic', 'anyio', 'uvicorn'}} & set(sys.modules)))"


@pytest.mark.parametrize(
    "statement", ["from pyro_mcp import Pyro", "import pyro_mcp.cli.main, pyro_mcp.cli.mcp, pyro_mcp.mcp_server.hosts"]
)
def test_what_needs_no_server_does_not_load_the_sdk_of_the_protocol(statement: str) -> None:
    code = LOADED.format(statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_is_made_from_the_package_and_from_a_pyro(paths: Paths) -> None:
    for server in (pyro_mcp.create_server(), Pyro().create_server(profile="vm-run")):
        assert (server.name, server.version) == ("pyro_mcp", pyro_mcp.__version__)
    with pytest.raises(InvalidRequest, match="profile"):
        pyro_mcp.create_server(profile="everything")  # type: ignore[arg-type]
