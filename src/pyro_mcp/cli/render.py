"""The one module that prints. stdout is the result, stderr is everything else."""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyro_mcp.errors import HostFault, Interrupted, PyroError

if TYPE_CHECKING:
    from pyro_mcp.engine.tasks.results import TaskExecResult


ERROR_COLOUR = "\x1b[1;31m"  # NO_COLOR, set to anything, turns it off
NO_COLOUR = "\x1b[0m"


class OutputClosed(Interrupted):
    """Whoever read our output went away. There is nobody to tell; the exit code is that of SIGPIPE."""

    exit_code = 141


class OutputFailed(HostFault):
    """Our output could not be written: a full disk, most often."""

    usual_remedy = "Look at where the output goes: is the disk full?"


@contextmanager
def _output() -> Iterator[None]:
    """Raises OutputClosed and OutputFailed for what becomes of writing a result."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed("the reader of the output went away") from error
    except OSError as error:
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from error


def result(value: Mapping[str, object]) -> None:
    """A result as JSON: indented, keys sorted."""
    lines([json.dumps(value, indent=2, sort_keys=True)])


def lines(texts: Iterable[str]) -> None:
    """Result lines."""
    with _output():
        sys.stdout.write("".join(f"{text}\n" for text in texts))
        sys.stdout.flush()


class _Voice:
    """Whether the work is told of; progress may come from any thread."""

    quiet = False


def be_quiet(*, wanted: bool) -> None:
    """From now on say nothing about the work, or say it again; results, warnings and errors are always told."""
    _Voice.quiet = wanted


def progress_line(text: str) -> None:
    """A line about the work."""
    if not _Voice.quiet:
        _tell(text)


def warning_line(text: str) -> None:
    """A line that has to be seen although nothing failed."""
    _tell(text)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is there to be told: the work and its exit code stay what they are
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def status_line(text: str) -> None:
    """A line that replaces the one before it, on a terminal; empty: take it away."""
    if _Voice.quiet or not _understands_escapes():
        return
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def error_line(text: str) -> None:
    """A message about a failure."""
    coloured = _understands_escapes() and not os.environ.get("NO_COLOR")
    _tell(f"{ERROR_COLOUR}[error]{NO_COLOUR} {text}" if coloured else f"[error] {text}")


def _understands_escapes() -> bool:
    """Whether stderr is a terminal that knows more than letters."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def failure(error: PyroError, *, as_json: bool) -> None:
    """A failure: its cause, its evidence, its remedy."""
    if as_json:
        result(error.as_dict())
        return
    for detail in error.details:
        _tell(f"  | {printable(detail)}")
    error_line(printable(error.cause))
    _tell(f"        {printable(error.remedy)}")


def printable(text: str) -> str:
    """*text* without what would act on the terminal: names and evidence may be a guest's, or a stranger's."""
    return "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def usage(synopsis: str, message: str, hint: str) -> None:
    """A command line that cannot be understood."""
    for text in (synopsis, f"Error: {message}", hint):
        if text:
            _tell(text)


def guest_bytes(descriptor: int, data: bytes | memoryview) -> None:
    """What the guest wrote, byte for byte, at once. *descriptor* is 1 or 2. Raises OutputClosed, OutputFailed."""
    view = memoryview(data)
    with _output():
        while view:
            view = view[os.write(descriptor, view) :]


def command_summary(tag: str, result: "TaskExecResult") -> None:
    """The closing line of a command in a task."""
    causes = f" causes={','.join(result['causes'])}" if result["causes"] else ""
    progress_line(
        f"[{tag}] task_id={result['task_id']} sequence={result['sequence']} cwd={result['cwd']}"
        f" execution_mode={result['execution_mode']} exit_code={result['exit_code']}"
        f" duration_ms={result['duration_ms']}{causes}"
    )
