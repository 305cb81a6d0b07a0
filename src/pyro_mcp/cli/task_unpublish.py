"""``pyro task unpublish``: published ports taken back."""

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument
from pyro_mcp.cli.task_publish import published
from pyro_mcp.errors import InvalidRequest


@click.command("unpublish", short_help="Take published ports back.")
@task_argument
@click.argument("ports", metavar="[[ADDR:]HOSTPORT]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All published ports of TASK.")
@output_options
def command(task: str, ports: tuple[str, ...], *, everything: bool, as_json: bool) -> None:
    """Stop listening on published ports of TASK. What is under way arrives first, within two seconds.

    \b
    Examples:
      pyro task unpublish demo 8080
      pyro task unpublish demo --all
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    if everything == bool(ports):
        raise InvalidRequest("host ports, or --all, are required", remedy="`pyro task publish TASK --list` shows them.")
    done = Pyro().unpublish_task(task, *ports)
    if as_json:
        render.result(done)
    else:
        render.lines(
            [f"Unpublished: {published(port)}" for port in done["unpublished_ports"]] or ["no published ports"]
        )
