"""What an MCP client is told of a call while it works."""

from pyro_mcp.host.progress import readable_size


class CallProgress:
    """The latest news of a call; told by its worker thread, read by the event loop."""

    def __init__(self) -> None:
        self._phase = "waiting"
        self._detail = ""

    def phase(self, name: str, **fields: object) -> None:
        """See ``Progress``."""
        self._detail = ""
        self._phase = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """See ``Progress``."""
        self._detail = readable_size(done_bytes) + (f" of {readable_size(total_bytes)}" if total_bytes else "")

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._detail = text

    @property
    def line(self) -> str:
        """The news in a line."""
        return f"{self._phase}: {self._detail}" if self._detail else self._phase
