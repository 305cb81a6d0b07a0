"""Command lines of pyro as help and documents show them, read by the command line's own parser; nothing is run."""

import re
import shlex

import click

from pyro_mcp.cli.main import pyro

ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
# What ends a command for the shell, and what comes before the name of a file.
OPERATOR = re.compile(r"[();<>|&]+")


def commands_of(line: str) -> list[list[str]]:
    """The words after ``pyro`` of each pyro command in *line*; variables, pipes and redirections are the shell's."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    result: list[list[str]] = []
    command: list[str] = []
    for word in [*lexer, ";"]:
        if not OPERATOR.fullmatch(word):
            command.append(word)
            continue
        if command and word.startswith(">") and command[-1].isdigit():
            command.pop()  # the descriptor that is redirected
        while command and ASSIGNMENT.fullmatch(command[0]):
            command.pop(0)
        words = command[2:] if command[:2] == ["uv", "run"] else command
        if words and words[0] == "pyro":
            result.append(words[1:])
        command = []
    return result


def found(words: list[str]) -> tuple[str, click.Command, list[str]]:
    """The verb that *words* begin with, its command, and the words left; raises ``click.UsageError``."""
    command: click.Command = pyro
    rest = list(words)
    verb: list[str] = []
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        _, child, more = command.resolve_command(click.Context(command, info_name="pyro"), rest)
        assert child is not None
        verb.append(rest[0])
        command, rest = child, more
    return " ".join(verb), command, rest


def parsed(words: list[str]) -> str:
    """The verb that *words* are for, once its parser has taken all of them; raises ``click.UsageError``."""
    verb, command, rest = found(words)
    if isinstance(command, click.Group) and not command.invoke_without_command:
        raise click.UsageError(f"a verb is missing after {verb or 'pyro'}")
    command.make_context(f"pyro {verb}", rest)
    return verb
