"""``pyro completion``: names for the shell to complete."""

import click
from click.shell_completion import ShellComplete, get_completion_class

from pyro_mcp.cli import render
from pyro_mcp.errors import PyroError

VARIABLE = "_PYRO_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Print what makes a shell complete pyro's verbs, options and names.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the code that makes SHELL complete verbs, options, environments and tasks.

    \b
    Examples:
      pyro completion bash > ~/.local/share/bash-completion/completions/pyro
      pyro completion zsh > ~/.zfunc/_pyro
      pyro completion fish > ~/.config/fish/completions/pyro.fish
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    found = get_completion_class(shell)
    if found is not None:
        # Not its own `source`: bash's starts a bash to ask for its version.
        render.lines([ShellComplete.source(found(context.find_root().command, {}, "pyro", VARIABLE)).strip()])


def environments(incomplete: str) -> list[str]:
    """The environments whose names begin so."""
    from pyro_mcp.sdk import Pyro

    try:
        return [row["name"] for row in Pyro().list_environments() if row["name"].startswith(incomplete)]
    except PyroError:  # whoever types a line must not be told of anything else
        return []


def tasks(incomplete: str) -> list[str]:
    """The names and the ids of tasks that begin so; a name is better than an id."""
    from pyro_mcp.sdk import Pyro

    try:
        pyro = Pyro()
        found = pyro.list_tasks()["tasks"] if pyro.state_directory.exists() else []
    except PyroError:
        return []
    return [name for row in found if (name := row["name"] or row["task_id"]).startswith(incomplete)] or [
        row["task_id"] for row in found if row["task_id"].startswith(incomplete)
    ]
