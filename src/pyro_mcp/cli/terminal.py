"""The user's terminal: raw while the guest has it, and as it was on every way out."""

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.model import Terminal


@contextlib.contextmanager
def raw_terminal(*, wanted: bool) -> Iterator[Terminal | None]:
    """Put the terminal on stdin into raw mode; yields its size. ``None`` and no change unless *wanted*."""
    if not wanted:
        yield None
        return
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        raise InvalidRequest("--tty needs a terminal on standard input", remedy="Use --stdin for a pipe or a file.")
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield current_size(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def current_size(descriptor: int) -> Terminal:
    """The size of the terminal, and the type the user's programs believe in."""
    columns, rows = os.get_terminal_size(descriptor)
    return Terminal(rows=rows, columns=columns, term=os.environ.get("TERM", "xterm-256color"))
