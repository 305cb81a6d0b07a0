"""``pyro runtime``: what machines are started from."""

from collections.abc import Iterator

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.cli.options import output_options
from pyro_mcp.cli.progress import TaggedProgress

DIGEST_SHOWN = 12


@click.group("runtime", cls=Group, short_help="List, install and verify what machines are started from.")
def command() -> None:
    """List, install and verify what machines are started from: Firecracker, the kernel, the agent.

    All of it comes by itself when it is needed; these commands do it beforehand, or look closer.

    \b
    Examples:
      pyro runtime list
      pyro runtime install
      pyro runtime verify
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("list")
@output_options
def list_parts(*, as_json: bool) -> int:
    """Show every part, where it came from and its state. Nothing is hashed: that is `pyro runtime verify`.

    The exit code is 1 when a part is damaged.

    \b
    Examples:
      pyro runtime list
      pyro runtime list --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    return _show(Pyro().list_runtime(), as_json=as_json)


@command.command("install")
@output_options
def install(*, as_json: bool) -> int:
    """Fetch and build what is missing or damaged. A run does the same by itself.

    \b
    Examples:
      pyro runtime install
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    return _show(Pyro(progress=TaggedProgress("runtime")).install_runtime(), as_json=as_json)


@command.command("verify")
@output_options
def verify(*, as_json: bool) -> int:
    """Compare every byte with its digest. The exit code is 0 only if nothing is damaged.

    \b
    Examples:
      pyro runtime verify
      pyro runtime verify --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    return _show(Pyro().verify_runtime(), as_json=as_json)


def _show(found: model.RuntimeParts, *, as_json: bool) -> int:
    if as_json:
        render.result(found)
    else:
        render.lines(_lines(found))
    return 0 if found["ok"] else 1


def _lines(found: model.RuntimeParts) -> Iterator[str]:
    warnings: dict[str, None] = {}
    for part in found["parts"]:
        digest = f" sha256={part['sha256'][:DIGEST_SHOWN]}" if part["sha256"] else ""
        known = f" {part['version']} ({part['source']}){digest}" if part["path"] else ""
        problem = f": {part['problem']}" if part["problem"] else ""
        yield f"{part['name']} [{part['state']}]{known}{problem}"
        warnings |= dict.fromkeys(part["warnings"])
    for text in warnings:
        yield f"Warning: {text}"
