"""The help: every verb has examples that its own parser takes, and the documents' command lines are taken, too."""

import inspect
import re
from collections.abc import Iterator

import click
import pytest

from pyro_mcp.cli.main import pyro, run
from pyro_mcp.paths import Paths

from ...command_lines import commands_of, found, parsed  # noqa: TID252 - the tests are no installed package
from ...consoles import FENCE, ROOT, blocks, commands  # noqa: TID252 - the tests are no installed package

EXAMPLES = re.compile(r"^Examples:\n((?:  .+\n?)+)", re.MULTILINE)
INLINE = re.compile(r"`(pyro [^`]+)`")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

pytestmark = pytest.mark.usefixtures("paths")


def every_command(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """*command* and all below it."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from every_command(child, (*words, name))


EVERY = dict(every_command(pyro))


def is_verb(command: click.Command) -> bool:
    """Whether it does something, and does not only hold others."""
    return not isinstance(command, click.Group) or command.invoke_without_command


def examples(words: str) -> list[str]:
    """The command lines in the help of *words*."""
    part = EXAMPLES.search(inspect.cleandoc(EVERY[words].help or "").replace("\b\n", ""))
    assert part is not None, f"the help of {words or 'pyro'} has no examples"
    return [line.strip() for line in part[1].splitlines()]


@pytest.mark.parametrize("words", EVERY, ids=lambda words: words or "pyro")
def test_the_help_of_a_verb_has_examples_that_its_parser_takes(words: str) -> None:
    verbs = [parsed(command) for line in examples(words) for command in commands_of(line)]
    assert len(verbs) >= len(examples(words))
    if is_verb(EVERY[words]):
        assert set(verbs) == {words}
    else:
        assert all(verb.startswith(words) for verb in verbs)


@pytest.mark.parametrize("words", EVERY, ids=lambda words: words or "pyro")
def test_the_help_begins_with_a_sentence(words: str) -> None:
    first = inspect.cleandoc(EVERY[words].help or "").partition("\n\n")[0]
    assert re.fullmatch(r"[A-Z].*[.]", first, re.DOTALL)


@pytest.mark.parametrize("words", [words for words, command in EVERY.items() if not is_verb(command)])
def test_a_group_without_a_verb_is_answered_with_its_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"Error: a verb is missing after `{' '.join(['pyro', *words.split()])}`")
    assert "Examples:" in shown.err
    assert "..." not in shown.err.partition("Commands:")[2], "a line of the list was cut"


def shown_in(name: str) -> Iterator[str]:
    """The command lines that a document shows: in console, shell and text blocks, and between backquotes."""
    document = ROOT / name
    yield from (shown.command for shown in commands(document))
    for block in blocks(document):
        if block.kind in ("sh", "text"):
            yield from (line for line in block.body.splitlines() if line.startswith(("pyro ", "uv run pyro ")))
    for span in INLINE.finditer(FENCE.sub("", document.read_text())):
        yield span[1]


def is_pattern(line: str) -> bool:
    """Whether *line* is a synopsis, not a command: alternatives, options left out, stand-ins, or no end."""
    return bool(re.search(r"\w\|\w|\[|\.\.\.|--\w[\w-]*( [A-Z]+)?$", line))


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_the_command_lines_of_a_document_are_taken_by_the_parser(name: str) -> None:
    for line in shown_in(name):
        for command in commands_of(line) if not is_pattern(line) else ():
            try:
                if found(command)[2]:  # else it only names a verb
                    parsed(command)
            except click.UsageError as error:
                pytest.fail(f"{name}: {line}: {error.format_message()}")


def test_the_parser_of_examples_refuses_what_pyro_refuses() -> None:
    for line in ("pyro rnu debian:12", "pyro run --nosuch debian:12 -- true", "pyro env", "pyro env inspect"):
        with pytest.raises(click.UsageError):
            parsed(commands_of(line)[0])


def test_the_help_of_pyro_has_the_exit_codes(capsys: pytest.CaptureFixture[str], paths: Paths) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for code in ("0", "1", "2", "124", "125", "130"):
        assert re.search(rf"\b{code}\b", shown.partition("Exit codes:")[2])
