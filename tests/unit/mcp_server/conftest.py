"""A server on a host without any VMM, where commands run on the host itself: all of the server, and no guest."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult

from pyro_mcp.mcp_server.failures import ERROR_KEY
from pyro_mcp.mcp_server.server import PyroServer, create_server
from pyro_mcp.paths import Paths

Era = Literal["auto", "legacy"]
Session = Callable[[Client], Awaitable[None]]
Served = Callable[..., PyroServer]


@pytest.fixture
def served(no_vmm: Paths) -> Served:
    """Have a client work with a server; the options are those of ``create_server``."""

    def serve(
        session: Session, *, era: Era = "auto", client: dict[str, Any] | None = None, **options: object
    ) -> PyroServer:
        server = create_server(**{"allow_host_compat": True, **options})  # type: ignore[arg-type]  # tests name them rightly

        async def work() -> None:
            async with Client(server, mode=era, **(client or {})) as connected:
                await session(connected)

        anyio.run(work)
        return server

    return serve


def text_of(result: CallToolResult) -> str:
    """The text of a result."""
    return "\n".join(block.text for block in result.content if block.type == "text")


def value_of(result: CallToolResult) -> dict[str, Any]:
    """The structured part of a result."""
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def host_run(command: str, **more: object) -> dict[str, object]:
    """The arguments of a run on the host."""
    return {"environment": "debian:12", "command": command, "allow_host_compat": True, **more}


def failure_of(result: CallToolResult) -> dict[str, Any]:
    """The typed form of a failure. There is no structured content: it would not fit the schema of a success."""
    assert result.is_error
    assert result.structured_content is None
    assert result.meta is not None
    found = result.meta[ERROR_KEY]
    assert isinstance(found, dict)
    return found
