"""The tools as clients see them: golden schemas, and what every tool must have; test_public_contract has the rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from pyro_mcp.mcp_server.profiles import PROFILES, TOOLS, Profile

from .conftest import Served

GOLDEN = Path(__file__).parent / "golden" / "tools.json"
LISTED: list[dict[str, Any]] = json.loads(GOLDEN.read_text())
BY_NAME = {tool["name"]: tool for tool in LISTED}
every_tool = pytest.mark.parametrize("tool", LISTED, ids=lambda tool: tool["name"])


def test_the_golden_file_is_what_the_server_lists(served: Served) -> None:
    async def session(client: Client) -> None:
        listed = (await client.list_tools()).tools
        assert [tool.model_dump(by_alias=True, exclude_none=True) for tool in listed] == LISTED

    served(session)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_offers_its_tools(served: Served, profile: Profile) -> None:
    async def session(client: Client) -> None:
        listed = (await client.list_tools()).tools
        assert tuple(tool.name for tool in listed) == TOOLS[profile]

    served(session, profile=profile)


@every_tool
def test_a_tool_is_described_and_annotated(tool: dict[str, Any]) -> None:
    assert tool["description"]
    assert tool["title"]
    assert set(tool["annotations"]) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    assert tool["outputSchema"]["type"] == "object"
    assert tool["inputSchema"]["additionalProperties"] is False


@every_tool
def test_every_parameter_is_described_and_every_text_is_bounded(tool: dict[str, Any]) -> None:
    for name, schema in tool["inputSchema"].get("properties", {}).items():
        assert schema["description"], name
        for one in schema.get("anyOf", [schema]):
            if one.get("type") == "string" and "enum" not in one:
                assert "maxLength" in one or one["pattern"].endswith("}$"), name


def test_what_a_model_reads_of_all_tools_stays_small() -> None:
    read = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in LISTED]
    assert len(json.dumps(read, separators=(",", ":"))) < 24_000
