"""What hosts are configured with, and what the registry is told."""

import json
import tomllib
from pathlib import Path

import pytest

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
