"""A source of environments that needs no network, and a listener: for tests of whatever uses an environment."""

import threading
from collections.abc import Callable
from pathlib import Path

from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.source import Made
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress

IMAGE = b"hsqs" + bytes(range(256)) * 64


class Listener:
    """Progress that is remembered; *noted* is set by the first note."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.done_bytes: list[int] = []
        self.noted = threading.Event()

    def phase(self, name: str, **_fields: object) -> None:
        """Remember the stage."""
        self.phases.append(name)

    def advance(self, done_bytes: int, _total_bytes: int | None = None) -> None:
        """Remember the bytes."""
        self.done_bytes.append(done_bytes)

    def note(self, text: str) -> None:
        """Remember the line."""
        self.notes.append(text)
        self.noted.set()


def _nothing() -> None:
    pass


class FakeSource:
    """Writes *image* in two halves and calls *during* between them; *made* counts the images it finished.

    With *error* it raises that instead of writing the second half.
    """

    def __init__(
        self,
        image: bytes = IMAGE,
        *,
        title: str = "fake source",
        during: Callable[[], None] = _nothing,
        error: Exception | None = None,
    ) -> None:
        self.title = title
        self.made = 0
        self._image = image
        self._during = during
        self._error = error
        self._count = threading.Lock()

    def offers(self, entry: CatalogEntry) -> bool:
        """It has everything."""
        return bool(entry.name)

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Write the image into *work*."""
        path = work / "rootfs.squashfs"
        half = len(self._image) // 2
        progress.phase("pack", environment=entry.name)
        with storage(f"writing {path}"):
            path.write_bytes(self._image[:half])
        self._during()
        deadline.check(f"making {entry.name}")
        if self._error is not None:
            raise self._error
        with storage(f"writing {path}"), path.open("ab") as stream:
            stream.write(self._image[half:])
        progress.advance(len(self._image))
        with self._count:
            self.made += 1
        return Made(path, "fake", {"bash": "5.2"})
