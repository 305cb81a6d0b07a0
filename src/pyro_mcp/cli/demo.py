"""``pyro demo``: the shortest proof that it works."""

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.progress import TaggedProgress


@click.command("demo", short_help="Run one command in a fresh microVM and show the whole result.")
@click.option("--network", is_flag=True, help="Outbound network. Not in this version: refused.")
def command(*, network: bool) -> int:
    """Run `git --version` in debian:12 and print the whole result as JSON."""
    from pyro_mcp.sdk import Pyro

    result = Pyro(progress=TaggedProgress("demo")).run_in_vm(
        environment="debian:12", command="git --version", network=network
    )
    render.result(result)
    return 0
