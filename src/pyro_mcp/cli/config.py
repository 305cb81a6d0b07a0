"""``pyro config``: the settings in force."""

from typing import Any

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.cli.options import output_options
from pyro_mcp.config.settings import shown, unknown_variables


@click.group("config", cls=Group, short_help="Show the settings in force, and where each comes from.")
def command() -> None:
    """Show the settings in force, and where each comes from.

    \b
    Examples:
      pyro config show
      PYRO_DRIVER=qemu pyro config show --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("show", short_help="Show each setting and where it comes from.")
@output_options
def show(*, as_json: bool) -> int:
    """Show each setting: its variable, its value, and whether that is the default or from the environment.

    The exit code is 1 when a variable has a value that it does not take.

    \b
    Examples:
      pyro config show
      PYRO_DRIVER=qemu pyro config show --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    rows = shown()
    unknown = unknown_variables()
    if as_json:
        render.result({"settings": rows, "unknown": unknown})
    else:
        width = max(len(row["variable"]) for row in rows)
        render.lines(_line(row, width) for row in rows)
        render.lines(f"Warning: {text}" for text in unknown)
    return 1 if any(row["problem"] for row in rows) else 0


def _line(row: dict[str, Any], width: int) -> str:
    value = _text(row["value"])
    problem = f" not valid: {row['problem']}" if row["problem"] else ""
    return f"{row['variable']:{width}} {value} ({row['source']}){problem}"


def _text(value: object) -> str:
    """A value as its variable takes it."""
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:d}" if isinstance(value, bool) else str(value) or "empty"
