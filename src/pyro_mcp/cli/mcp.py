"""``pyro mcp``: the MCP server, and what hosts need to know of it."""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.errors import InvalidRequest

HOSTS = ("claude-code", "claude-desktop", "codex", "cursor", "vscode", "gemini")
PROFILES = ("vm-run", "tasks", "full")
CALL_SECONDS_LIMITS = (1, 86_400)
PORT_MOST = 65_535


@click.group("mcp", cls=Group, short_help="Serve pyro to MCP clients, and configure them.")
def command() -> None:
    """Serve pyro to MCP clients, and configure them.

    \b
    Examples:
      pyro mcp config --host claude-code
      pyro mcp serve --profile vm-run
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("serve")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="full",
    show_default=True,
    help="Which tools to offer: one-shot runs, tasks, or everything.",
)
@click.option(
    "--allow-path",
    "allow_paths",
    multiple=True,
    metavar="DIR",
    help="Let clients push files below DIR; repeatable. Default with stdio: the working directory, unless that is the"
    " home directory or above it, and the roots the client names; with --http: none.",
)
@click.option("--allow-host-compat", is_flag=True, help="Let clients run commands on this host itself: no isolation.")
@click.option(
    "--allow-publish-address",
    "publish_addresses",
    multiple=True,
    metavar="ADDR",
    help="Let clients publish ports of tasks on ADDR of this host, too, and not only on loopback; repeatable.",
)
@click.option(
    "--http",
    "address",
    metavar="HOST:PORT",
    help="Serve streamable HTTP at /mcp instead of stdio. Clients send the bearer token in PYRO_MCP_TOKEN; without that"
    " variable a token is made and printed on stderr.",
)
@click.option(
    "--call-seconds",
    type=click.FloatRange(*CALL_SECONDS_LIMITS),
    default=50.0,
    show_default=True,
    help="Answer a call that takes longer with a job id; many hosts cut calls at 60 seconds.",
)
def serve(
    profile: str,
    allow_paths: tuple[str, ...],
    publish_addresses: tuple[str, ...],
    address: str | None,
    call_seconds: float,
    *,
    allow_host_compat: bool,
) -> int:
    """Serve MCP over stdio, or over HTTP.

    Machines made through this server are deleted with it; tasks live on.

    \b
    Examples:
      pyro mcp serve --profile tasks --allow-path ~/project
      PYRO_MCP_TOKEN=... pyro mcp serve --http 127.0.0.1:8000
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    place = None if address is None else _address(address)
    create: Any = importlib.import_module("pyro_mcp.mcp_server.server").create_server
    serving: Any = importlib.import_module("pyro_mcp.mcp_server.serving")
    server = create(
        profile=profile,
        allow_paths=allow_paths,
        allow_host_compat=allow_host_compat,
        call_seconds=call_seconds,
        publish_addresses=publish_addresses,
        local=place is None,
    )
    code: int = serving.serve_stdio(server) if place is None else serving.serve_http(server, *place)
    return code


@command.command("config", short_help="Print what makes an MCP host start pyro.")
@click.option("--host", type=click.Choice(HOSTS), required=True, help="The program that is to use pyro.")
@click.option(
    "--uvx", is_flag=True, help="Start pyro with `uvx`, which fetches it; otherwise the pyro of this command."
)
@click.option(
    "--profile", type=click.Choice(PROFILES), default="full", show_default=True, help="As for `pyro mcp serve`."
)
@click.option("--allow-path", "allow_paths", multiple=True, metavar="DIR", help="As for `pyro mcp serve`.")
def config(host: str, profile: str, allow_paths: tuple[str, ...], *, uvx: bool) -> None:
    """Print what makes an MCP host start pyro: on stdout the snippet, on stderr where it goes.

    \b
    Examples:
      pyro mcp config --host claude-code
      pyro mcp config --host cursor --uvx > .cursor/mcp.json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    words = ["mcp", "serve"]
    if profile != "full":
        words += ["--profile", profile]
    for path in allow_paths:
        words += ["--allow-path", str(Path(path).expanduser().absolute())]
    argv = ["uvx", "--from", "pyro-mcp", "pyro", *words] if uvx else [*_this_pyro(), *words]
    found: Any = importlib.import_module("pyro_mcp.mcp_server.hosts").snippet(host, argv)
    if found.command:
        render.progress_line(f"Run: {found.command}")
        render.progress_line(f"Or add this to {found.file}:")
    else:
        render.progress_line(f"Add this to {found.file}:")
    render.lines([found.text])


def _this_pyro() -> list[str]:
    """How to start this very pyro from anywhere."""
    beside = Path(sys.executable).parent / "pyro"
    if beside.exists():
        return [str(beside)]
    found = shutil.which("pyro")
    return [found] if found else [sys.executable, "-m", "pyro_mcp"]


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= PORT_MOST:
        raise InvalidRequest(f"--http {text!r:.80} is not HOST:PORT", remedy="For instance: --http 127.0.0.1:8000")
    return host, int(port)
