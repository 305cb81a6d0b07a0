"""The ``console`` blocks of our documents: what a reader types, and what the document says comes of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`(?P<name>[a-z_]+\.py)`:\n\n```python\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = "$ "

# Commands of the documents that no test runs, each with its reason. They are matched whole.
NOT_RUN = {
    "make demo": "it installs packages on this host, and then runs the first command of the README",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of a document, and the lines that follow it there."""

    line: int
    command: str
    output: str


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the *line* it begins on, its language, its text."""

    line: int
    kind: str
    body: str


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of *document*."""
    text = document.read_text()
    return [
        Block(text.count("\n", 0, found.start()) + 1, found["kind"], found["body"]) for found in FENCE.finditer(text)
    ]


def commands(document: Path) -> Iterator[Shown]:
    """The commands of all console blocks, in order. Raises ValueError for a block that does not begin with one."""
    for block in blocks(document):
        if block.kind != "console":
            continue
        if not block.body.startswith(PROMPT):
            raise ValueError(f"{document.name}:{block.line}: a console block begins with a command")
        shown: Shown | None = None
        for number, text in enumerate(block.body.splitlines(), start=block.line + 1):
            if text.startswith(PROMPT):
                if shown is not None:
                    yield shown
                shown = Shown(number, text.removeprefix(PROMPT), "")
            elif shown is not None:
                shown = Shown(shown.line, shown.command, f"{shown.output}{text}\n")
        if shown is not None:
            yield shown


def files(document: Path) -> dict[str, str]:
    """The Python files that *document* shows: their names stand alone on the line before the block."""
    return {found["name"]: found["body"] for found in FILE.finditer(document.read_text())}


# What differs from one run, machine or moment to the next, in what a document shows.
VARIABLE = tuple(
    (re.compile(shown), actual)
    for shown, actual in (
        (r"\b[0-9a-f]{64}\b", r"[0-9a-f]{64}"),
        (r"\b[0-9a-f]{16}\b", r"[0-9a-f]{16}"),
        (r"\b[0-9a-f]{12}\b", r"[0-9a-f]{12}"),
        (r"/home/you/[\w./:-]*", r"/[^\s\"]*"),
        (r"(?<=duration_ms=)\d+", r"\d+"),
        (r"(?<=\"duration_ms\": )\d+", r"\d+"),
        (r"\b2\.39\.\d+", r"2\.39\.\d+"),
        (r"\b6\.1\.0-\d+-cloud-amd64", r"\d+\.\d+\.\d+-\d+-cloud-amd64"),
        (r"(?<= Linux )\S+(?=,)", r"[^,]+"),
        (r"\b\d+(?= CPUs)", r"\d+"),
        (r"\b[\d.]+(?= [MG]iB)", r"[\d.]+"),
        (r"(?<=Time left: )\d+", r"\d+"),
        (r"\[(?:not )?installed\]", r"\[(?:not )?installed\]"),
        (r"\b(?:yes|no)\b", r"(?:yes|no)"),
        (r"(?<=uplink=)\w+", r"\w+"),
        (r"(?<=\"accelerator\": )\"\w+\"", r"\"\w+\""),
        (r"(?<=qemu \()(?:kvm|tcg); .*(?=\)$)", r"(?:kvm|tcg); [^\n]*"),
        (r"(?<=KVM is not used: ).*", r"[^\n]*"),
        (r"(?<=^Isolation: ).*", r"[^\n]*"),
        (r"(?<=^Driver firecracker: ).*", r"[^\n]*"),
        (r"\b\d+(?= +\d+% /)", r"\d+"),
    )
)
# Lines that are there on some hosts, or at the first time, and not always.
OPTIONAL = re.compile(r"KVM is not used: .*|\[\w+\] phase=(?:update|download|bootstrap|pack|verify) .*|- .*|Issues:")
FIRST_TIME = re.compile(r"^\[\w+\] phase=template .*\n", re.MULTILINE)
ELISION = "..."


def steady(output: str) -> str:
    """Real *output* without what only the first machine of a kind has to say."""
    return FIRST_TIME.sub("", output)


def pattern(output: str) -> re.Pattern[str]:
    """What the real output has to match: variable parts by kind, a line of three dots for any lines."""
    return re.compile("".join(_line(line) for line in output.splitlines()), re.DOTALL)


def _line(line: str) -> str:
    if line == ELISION:
        return r"(?:.*\n)?"
    expression = f"{_expression(line)}\\n"
    return f"(?:{expression})?" if OPTIONAL.fullmatch(line) else expression


def _expression(line: str, start: int = 0) -> str:
    """*line* from *start* on, its variable parts by what they may be."""
    found = [(match, actual) for shown, actual in VARIABLE if (match := shown.search(line, start))]
    if not found:
        return re.escape(line[start:])
    match, actual = min(found, key=lambda item: item[0].start())
    return f"{re.escape(line[start : match.start()])}{actual}{_expression(line, match.end())}"
