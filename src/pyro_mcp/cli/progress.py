"""Progress for people: phase lines, and on a terminal one line of bytes and rate that renews itself."""

import sys
import time
from collections.abc import Container

from pyro_mcp.cli import render
from pyro_mcp.host.progress import readable_size

RENEW_SECONDS = 0.2


class TaggedProgress:
    """Prints ``[tag] phase=NAME key=value`` lines on stderr; those of the phases *needed* even when all is quiet."""

    def __init__(self, tag: str, *, needed: Container[str] = ()) -> None:
        self._tag = tag
        self._needed = needed
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._renewed = 0.0
        self._shown = False

    def phase(self, name: str, **fields: object) -> None:
        """See ``Progress``."""
        self._take_away()
        self._began = time.monotonic()
        words = [f"{key}={value}" for key, value in fields.items()]
        tell = render.warning_line if name in self._needed else render.progress_line
        tell(" ".join([f"[{self._tag}] phase={name}", *words]))

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """See ``Progress``; shown on a terminal only."""
        now = time.monotonic()
        if not self._terminal or now - self._renewed < RENEW_SECONDS:
            return
        self._renewed = now
        rate = done_bytes / max(now - self._began, 0.001)
        total = f" of {readable_size(total_bytes)}" if total_bytes else ""
        render.status_line(f"[{self._tag}] {readable_size(done_bytes)}{total}, {readable_size(rate)}/s")
        self._shown = True

    def note(self, text: str) -> None:
        """See ``Progress``."""
        self._take_away()
        render.progress_line(f"[{self._tag}] {text}")

    def _take_away(self) -> None:
        if self._shown:
            render.status_line("")
            self._shown = False
