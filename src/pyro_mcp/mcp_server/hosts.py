"""What to write into the configuration of an MCP host so that it starts pyro."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from pyro_mcp.errors import InvalidRequest

SERVER = "pyro"


@dataclass(frozen=True, slots=True)
class Snippet:
    """*text* goes to *file*; *command*, where there is one, does the same."""

    file: str
    text: str
    command: str = ""


def _json(key: str, entry: dict[str, Any]) -> str:
    return json.dumps({key: {SERVER: entry}}, indent=2)


def _entry(argv: list[str], **more: object) -> dict[str, Any]:
    return {"command": argv[0], "args": argv[1:], **more}


def _claude_code(argv: list[str]) -> Snippet:
    text = _json("mcpServers", {"type": "stdio", **_entry(argv)})
    return Snippet(".mcp.json in the project", text, f"claude mcp add {SERVER} -- {shlex.join(argv)}")


def _claude_desktop(argv: list[str]) -> Snippet:
    return Snippet("claude_desktop_config.json", _json("mcpServers", _entry(argv)))


def _codex(argv: list[str]) -> Snippet:
    lines = (f"[mcp_servers.{SERVER}]", f"command = {json.dumps(argv[0])}", f"args = {json.dumps(argv[1:])}")
    text = "\n".join([*lines, "tool_timeout_sec = 300"])
    return Snippet("~/.codex/config.toml", text, f"codex mcp add {SERVER} -- {shlex.join(argv)}")


def _cursor(argv: list[str]) -> Snippet:
    return Snippet(".cursor/mcp.json in the project, or ~/.cursor/mcp.json", _json("mcpServers", _entry(argv)))


def _vscode(argv: list[str]) -> Snippet:
    return Snippet(".vscode/mcp.json in the project", _json("servers", {"type": "stdio", **_entry(argv)}))


def _gemini(argv: list[str]) -> Snippet:
    text = _json("mcpServers", _entry(argv, timeout=300_000))
    return Snippet("~/.gemini/settings.json", text, f"gemini mcp add -s user {SERVER} {shlex.join(argv)}")


HOSTS = {
    "claude-code": _claude_code,
    "claude-desktop": _claude_desktop,
    "codex": _codex,
    "cursor": _cursor,
    "vscode": _vscode,
    "gemini": _gemini,
}


def snippet(host: str, argv: list[str]) -> Snippet:
    """The configuration that makes *host* start *argv*; raises InvalidRequest for an unknown host."""
    if host not in HOSTS:
        raise InvalidRequest(f"host must be one of {', '.join(HOSTS)}, not {host!r:.40}")
    return HOSTS[host](argv)
