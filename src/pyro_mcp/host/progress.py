"""How long work tells of itself. The surfaces decide what a person, a log or an MCP client sees of it."""

from typing import Protocol


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
