"""``pyro task publish``: a port of a task as a port of this host."""

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import PublishedPort


@click.command("publish", short_help="Make a port of a task one of this host.")
@task_argument
@click.argument("port", metavar="[ADDR:]HOSTPORT:GUESTPORT", required=False)
@click.option("--list", "only_list", is_flag=True, help="Show the published ports of TASK instead.")
@output_options
def command(task: str, port: str | None, *, only_list: bool, as_json: bool) -> None:
    """Let a TCP port of this host lead to one of TASK, as long as its machine lives. It needs no network.

    Without ADDR it is on 127.0.0.1, for programs of this host alone. Host port 0 takes a free one.

    \b
    Examples:
      pyro task publish demo 8080:80
      pyro task publish demo 0:80
      pyro task publish demo --list
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    if only_list == (port is not None):
        raise InvalidRequest("a port, or --list, is required", remedy=f"For instance: pyro task publish {task} 8080:80")
    if port is None:
        record = Pyro().status_task(task)
        if as_json:
            render.result({"task_id": record["task_id"], "published_ports": record["published_ports"]})
        else:
            render.lines([published(one) for one in record["published_ports"]] or ["no published ports"])
        return
    done = Pyro().publish_task(task, port)
    if as_json:
        render.result(done)
    else:
        render.lines([f"Published: {published(done)}"])


def published(port: PublishedPort) -> str:
    """A published port for people: ``127.0.0.1:8080 -> 80``."""
    address = f"[{port['address']}]" if ":" in port["address"] else port["address"]
    return f"{address}:{port['host_port']} -> {port['guest_port']}"
