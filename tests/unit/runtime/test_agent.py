"""The agent is found, or its absence is explained."""

import hashlib
from pathlib import Path

import pytest

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.runtime import find_agent


def test_the_agent_is_found_with_its_digest(agent: Path) -> None:
    found = find_agent(agent)
    assert found.path == agent
    assert found.sha256 == hashlib.sha256(agent.read_bytes()).hexdigest()


def test_a_missing_agent_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeBroken, match="missing") as caught:
        find_agent(tmp_path / "pyro-agent")
    assert "make setup" in caught.value.remedy


def test_an_agent_that_cannot_be_executed_is_refused(agent: Path) -> None:
    agent.chmod(0o644)
    with pytest.raises(RuntimeBroken, match="not an executable file"):
        find_agent(agent)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" + b"x" * 100, b"\x7fELF"])
def test_an_agent_that_is_no_program_is_refused(agent: Path, content: bytes) -> None:
    agent.write_bytes(content)
    with pytest.raises(RuntimeBroken, match="damaged"):
        find_agent(agent)


def test_a_directory_in_the_agents_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeBroken, match="not an executable file"):
        find_agent(tmp_path)
