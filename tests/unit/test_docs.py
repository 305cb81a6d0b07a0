"""The documents: their links lead somewhere, and what they list is all there is."""

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

from pyro_mcp import errors
from pyro_mcp.cli.main import pyro
from pyro_mcp.errors import PyroError
from pyro_mcp.paths import Paths

from ..consoles import FENCE, NOT_RUN, ROOT, blocks, commands  # noqa: TID252 - the tests are no installed package

DOCS = ROOT / "docs"
TREES = ("docs", "examples", "runtime_sources")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(page for name in TREES for page in (ROOT / name).rglob("*.md"))])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)
ROW = re.compile(r"^\| `(?P<path>(?:state|cache|environments)/[^`]+)` \|", re.MULTILINE)
NUMBER = 999_999  # stands for any number, looks like no other, and is as wide as any of ours
# Addresses of package hosts. In pieces: this file is searched, too.
FORBIDDEN = re.compile(
    "|".join(
        re.escape(head + tail)
        for head, tail in (
            ("pypi", ".org"),
            ("pypi", ".python"),
            ("python", "hosted.org"),
            ("registry.npm", "js"),
            ("npmjs", ".com"),
            ("deb.deb", "ian"),
            ("ftp.deb", "ian"),
            ("security.deb", "ian"),
            ("snapshot.deb", "ian"),
            ("archive.ubu", "ntu"),
            ("proxy.go", "lang"),
        )
    )
)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(document: Path) -> str:
    """The text of *document* without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """What a link into *document* may name, as the usual renderers make it from headings."""
    titles = (found["title"].lower() for found in HEADING.finditer(prose(document)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@every_document
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for found in LINK.finditer(prose(document)):
        target, _, anchor = found["target"].partition("#")
        if target.startswith(("https://", "http://")):
            continue
        path = (document.parent / target).resolve() if target else document
        assert path.is_relative_to(ROOT), f"{found['target']} leads out of the repository"
        assert path.exists(), f"{found['target']} leads nowhere"
        assert not anchor or anchor in anchors(path), f"{found['target']}: there is no such heading"


@every_document
def test_console_blocks_begin_with_a_command(document: Path) -> None:
    list(commands(document))


@every_document
def test_every_block_names_its_language(document: Path) -> None:
    assert [block.line for block in blocks(document) if not block.kind] == []


def test_only_the_tested_documents_show_commands_with_their_output() -> None:
    showing = {document.name for document in DOCUMENTS if any(True for _ in commands(document))}
    assert showing == {"README.md", "first-run.md", "tasks.md"}


def test_what_is_not_run_is_shown_somewhere() -> None:
    shown = {command.command for document in DOCUMENTS for command in commands(document)}
    assert set(NOT_RUN) <= shown


def test_the_recording_shows_the_commands_of_its_tape_and_what_came_of_each() -> None:
    recording = ET.parse(DOCS / "first-run.svg")  # noqa: S314 - our own file
    shown = ["".join(text.itertext()) for text in recording.iter("{http://www.w3.org/2000/svg}text")]
    commands_shown = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    assert commands_shown == (DOCS / "first-run.tape").read_text().splitlines()
    assert len(
        [line for line in shown if re.search(r"^\[run\] environment=.* exit_code=\d+ duration_ms=", line)]
    ) == len(commands_shown)


@every_document
def test_every_picture_is_there(document: Path) -> None:
    for target in PICTURE.findall(prose(document)):
        assert (document.parent / target).is_file()


def error_codes(root: type[PyroError]) -> Iterator[str]:
    yield root.code
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_codes(child)


def test_every_error_code_has_one_entry_in_troubleshooting() -> None:
    titles = [found["title"] for found in HEADING.finditer(prose(DOCS / "troubleshooting.md"))]
    entries = [title.strip("`") for title in titles if title.startswith("`")]
    assert sorted(entries) == sorted(error_codes(PyroError))


def opening_options(command: click.Command) -> Iterator[str]:
    """The options of *command*, and of all below it, that let more in or out than the default does."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from opening_options(child)
    for parameter in command.params:
        if parameter.opts[0].startswith(("--allow", "--http", "--publish", "--network")):
            yield parameter.opts[0]


def test_the_threat_model_speaks_of_every_option_that_opens_something() -> None:
    text = (DOCS / "threat-model.md").read_text() + (DOCS / "network.md").read_text()
    options = set(opening_options(pyro))
    assert {"--allow-path", "--http", "--publish"} <= options
    assert [option for option in sorted(options) if f"`{option}" not in text and f" {option}`" not in text] == []


def named_paths(holder: object) -> Iterator[str]:
    """Every path that *holder* names, and those that the holders it makes name; arguments stand as ``<name>``."""
    for name, member in inspect.getmembers(type(holder)):
        if name.startswith("_") or inspect.ismethod(member):
            continue
        if isinstance(member, property):
            value = getattr(holder, name)
        elif inspect.isfunction(member):
            value = member(holder, *stand_ins(member))
        else:
            continue
        if isinstance(value, Path):
            yield str(value).replace(str(NUMBER), "<number>")
        elif type(value).__module__ == Paths.__module__:
            yield from named_paths(value)


def stand_ins(method: object) -> Iterator[object]:
    """An argument for each parameter of *method* after the first."""
    _, *parameters = inspect.signature(method, eval_str=True).parameters.values()  # type: ignore[arg-type]
    for parameter in parameters:
        yield NUMBER if parameter.annotation is int else f"<{parameter.name}>"


def test_every_path_is_explained_and_everything_explained_is_a_path() -> None:
    named = set(named_paths(Paths(Path("state"), Path("cache"), Path("environments"))))
    assert set(ROW.findall((DOCS / "on-disk.md").read_text())) == named


def test_generated_documents_are_up_to_date() -> None:
    script = ROOT / "scripts" / "generate_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def repository_files() -> list[Path]:
    """What is or would be committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout")
    return [path for name in done.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_package_host() -> None:
    found = [str(path) for path in repository_files() if FORBIDDEN.search(path.read_bytes().decode(errors="replace"))]
    assert found == []
