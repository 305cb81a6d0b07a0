"""``pyro completion``: names for the shell to complete."""

import os
from typing import ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from pyro_mcp.cli import render
from pyro_mcp.errors import PyroError

VARIABLE = "_PYRO_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
QUOTES = ("'", '"')
# Readline takes words apart at colons, and so would debian:12 be: the line goes to pyro as it was typed.
BASH = """\
%(complete_func)s() {
    local kind value
    while IFS=, read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="${COMP_WORDS[COMP_CWORD]}" \
        COMP_WORDBREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Completion in bash, of words with colons, too."""

    source_template: ClassVar[str] = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        line = os.environ.get("COMP_LINE", "")
        _, *words = split_arg_string(line) or [""]
        return (words, "") if not line or line[-1].isspace() else (words[:-1], words[-1] if words else "")

    def complete(self) -> str:
        """What is offered: without what stands before the last colon, where readline believes the word to begin."""
        args, incomplete = self.get_completion_args()
        whole = incomplete.partition("=")[2] if incomplete.startswith("-") else incomplete
        apart = ":" in os.environ.get("COMP_WORDBREAKS", "") and not os.environ.get("COMP_WORD", "").startswith(QUOTES)
        there = whole[: whole.rfind(":") + 1] if apart else ""
        items = self.get_completions(args, incomplete)
        return "\n".join(f"{item.type},{str(item.value).removeprefix(there)}" for item in items)


class WholeWords(ShellComplete):
    """Completion in a shell that replaces the word as a whole: of ``--driver=qe`` also what stands before the value."""

    def get_completions(
        self, args: list[str], incomplete: str
    ) -> "list[CompletionItem[str]]":  # in quotes: not generic in click 8.1
        """See ``ShellComplete``."""
        items = super().get_completions(args, incomplete)
        name, equals, _ = incomplete.partition("=")
        if equals and name.startswith("-"):
            for item in items:
                item.value = f"{name}={item.value}"
        return items


class Zsh(WholeWords, ZshComplete):
    """Completion in zsh."""


class Fish(WholeWords, FishComplete):
    """Completion in fish."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one, without its quotes (click 8.1 leaves them)."""
        _, *words = split_arg_string(os.environ.get("COMP_WORDS", "")) or [""]
        incomplete = (split_arg_string(os.environ.get("COMP_CWORD", "")) or [""])[0]
        return (words[:-1] if incomplete and words[-1:] == [incomplete] else words), incomplete


for shell_class in (Bash, Zsh, Fish):
    add_completion_class(shell_class)


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
