"""What hosts are configured with, and what the registry is told."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from pyro_mcp import __version__
from pyro_mcp.cli import mcp
from pyro_mcp.cli.main import run
from pyro_mcp.mcp_server.hosts import HOSTS
from pyro_mcp.mcp_server.profiles import PROFILES

ROOT = Path(__file__).parents[3]
KEYS = {"vscode": "servers"}


def test_the_command_line_knows_the_same_hosts_and_profiles() -> None:
    assert tuple(HOSTS) == mcp.HOSTS
    assert mcp.PROFILES == PROFILES


@pytest.mark.parametrize("host", mcp.HOSTS)
def test_a_snippet_starts_this_pyro(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "config", "--host", host, "--profile", "tasks", "--allow-path", "/tmp/a b"]) == 0
    printed = capsys.readouterr()
    if host == "codex":
        entry = tomllib.loads(printed.out)["mcp_servers"]["pyro"]
    else:
        entry = json.loads(printed.out)[KEYS.get(host, "mcpServers")]["pyro"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-6:] == ["mcp", "serve", "--profile", "tasks", "--allow-path", "/tmp/a b"]
    assert "add" in printed.err.lower()


def test_a_snippet_may_use_uvx(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "config", "--host", "cursor", "--uvx"]) == 0
    entry = json.loads(capsys.readouterr().out)["mcpServers"]["pyro"]
    assert [entry["command"], *entry["args"]] == ["uvx", "--from", "pyro-mcp", "pyro", "mcp", "serve"]


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:0", ":80", "h:99999", "h:x"])
def test_an_address_is_checked(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "serve", "--http", address]) == 1
    assert "HOST:PORT" in capsys.readouterr().err


def test_the_registry_entry_agrees_with_the_package_and_the_readme() -> None:
    entry = json.loads((ROOT / "server.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = entry["packages"][0]
    assert entry["version"] == package["version"] == project["version"] == __version__
    assert package["identifier"] == project["name"]
    assert project["name"] in project["scripts"]
    assert len(entry["description"]) <= 100
    assert entry["name"].count("/") == 1
    assert f"<!-- mcp-name: {entry['name']} -->" in (ROOT / "README.md").read_text().splitlines()


def problems(entry: dict[str, Any]) -> list[str]:
    """What the registry's schema has against *entry*."""
    schema = json.loads(Path(__file__).with_name("server_schema.json").read_text())
    Draft7Validator.check_schema(schema)
    return [error.message for error in Draft7Validator(schema).iter_errors(entry)]


def test_the_registry_entry_is_what_the_registry_takes() -> None:
    assert problems(json.loads((ROOT / "server.json").read_text())) == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda entry: entry.update(name="pyro"), id="name without a namespace"),
        pytest.param(lambda entry: entry.update(description="x" * 101), id="long description"),
        pytest.param(lambda entry: entry.update(descripton=""), id="misspelt key"),
        pytest.param(lambda entry: entry["packages"][0].pop("transport"), id="no transport"),
        pytest.param(lambda entry: entry["packages"][0].update(version="latest"), id="no version in particular"),
        pytest.param(lambda entry: entry["packages"][0]["packageArguments"][0].pop("value"), id="no value"),
    ],
)
def test_the_schema_finds_a_mistake(spoil: Callable[[dict[str, Any]], object]) -> None:
    entry = json.loads((ROOT / "server.json").read_text())
    spoil(entry)
    assert problems(entry)


def test_the_registry_entry_starts_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    package = json.loads((ROOT / "server.json").read_text())["packages"][0]
    words = [argument["value"] for argument in package["packageArguments"]]
    assert run([*words, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: pyro mcp serve")
