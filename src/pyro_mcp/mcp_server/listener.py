"""What an MCP client is told of a call while it works; and how long work that has no other ear is cancelled."""

import threading

from pyro_mcp.errors import Interrupted

UNITS = ("B", "KiB", "MiB", "GiB")


class CallProgress:
    """The latest news of a call; told by its worker thread, read by the event loop.

    After ``cancel`` the next news raise Interrupted in the thread that tells them: so ends a download, or a push.
    """

    def __init__(self) -> None:
        self._phase = "waiting"
        self._detail = ""
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the work at its next news."""
        self._cancelled.set()

    def phase(self, name: str, **fields: object) -> None:
        """See ``Progress``."""
        self._check()
        self._detail = ""
        self._phase = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """See ``Progress``."""
        self._check()
        self._detail = size(done_bytes) + (f" of {size(total_bytes)}" if total_bytes else "")

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._check()
        self._detail = text

    @property
    def line(self) -> str:
        """The news in a line."""
        return f"{self._phase}: {self._detail}" if self._detail else self._phase

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Interrupted("the call was cancelled")


def size(count: float) -> str:
    """A number of bytes for people: ``12.3 MiB``."""
    for unit in UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {UNITS[-1]}"
