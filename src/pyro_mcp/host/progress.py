"""How long work tells of itself. The surfaces decide what a person, a log or an MCP client sees of it."""

import threading
from typing import Protocol

from pyro_mcp.errors import Interrupted

UNITS = ("B", "KiB", "MiB", "GiB")


class Progress(Protocol):
    """Told by the parts, shown by the surfaces. Calls are cheap and may come from any thread."""

    def phase(self, name: str, **fields: object) -> None:
        """A stage begins, for instance ``phase("install", environment="debian:12")``."""

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """Bytes handled so far in this stage; *total_bytes* when it is known."""

    def note(self, text: str) -> None:
        """A line the user should see, for instance that another source is tried."""


class Silent:
    """Progress nobody looks at."""

    def phase(self, name: str, **fields: object) -> None:
        """Say nothing."""

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Stoppable:
    """Passes news on to *inner*. After ``stop`` the next news raise Interrupted in the thread that tells them.

    So ends work that no ``Control`` reaches: a download, or a push.
    """

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop the work at its next news."""
        self._stopped.set()

    def phase(self, name: str, **fields: object) -> None:
        """See ``Progress``."""
        self._check()
        self._inner.phase(name, **fields)

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """See ``Progress``."""
        self._check()
        self._inner.advance(done_bytes, total_bytes)

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._check()
        self._inner.note(text)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the call was cancelled")


def readable_size(count: float) -> str:
    """A number of bytes for people: ``12.3 MiB``."""
    for unit in UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {UNITS[-1]}"
