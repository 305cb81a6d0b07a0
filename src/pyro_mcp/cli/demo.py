"""``pyro demo``: the shortest proof that it works."""

import shlex

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.demo_ollama import command as ollama
from pyro_mcp.cli.options import output_options
from pyro_mcp.cli.progress import TaggedProgress

GIT = "git --version"
# Bash alone speaks enough HTTP to show that a name is found and that its server answers.
HTTP = (
    r"""exec 3<>/dev/tcp/example.com/80 && printf 'HEAD / HTTP/1.0\r\nHost: example.com\r\n\r\n' >&3 && head -n 1 <&3"""
)


@click.group(
    "demo", short_help="Run one command in a fresh microVM and show the whole result.", invoke_without_command=True
)
@click.option("--network", is_flag=True, help="With a network: ask example.com for its first page instead.")
@output_options
@click.pass_context
def command(context: click.Context, *, network: bool, as_json: bool) -> int:  # noqa: ARG001 - it is JSON in any case
    """Run `git --version` in debian:12 and print the whole result as JSON.

    The exit code is 0 when the guest ran, whatever the command's own was; 1: pyro itself failed.

    \b
    Examples:
      pyro demo
      pyro demo --network
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    if context.invoked_subcommand is not None:
        return 0
    from pyro_mcp.sdk import Pyro

    result = Pyro(progress=TaggedProgress("demo")).run_in_vm(
        environment="debian:12", command=shlex.join(["bash", "-c", HTTP]) if network else GIT, network=network
    )
    render.result(result)
    return 0


command.add_command(ollama)
