"""``.gitignore`` and ``.pyroignore``: what a push leaves out when it is asked to."""

import os
from collections.abc import Iterable
from pathlib import Path

from pathspec import GitIgnoreSpec

from pyro_mcp.errors import InvalidRequest, SourceUnreadable

FILES = (".gitignore", ".pyroignore")  # the later one has the last word
SIZE_MOST = 1 << 20


class Ignore:
    """The ignore files of a tree, each for what is below its directory; a deeper one overrules those above it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._specs: dict[bytes, GitIgnoreSpec | None] = {}

    def leaves_out(self, path: bytes, *, directory: bool) -> bool:
        """Whether *path* (from the root on) is named; that a directory above it is named is the caller's to know."""
        name = os.fsdecode(path) + ("/" if directory else "")
        place = path
        while place:
            place = place.rpartition(b"/")[0]
            spec = self._spec(place)
            if spec is not None:
                verdict = spec.check_file(name[len(os.fsdecode(place)) + 1 :] if place else name).include
                if verdict is not None:
                    return verdict
        return False

    def _spec(self, place: bytes) -> GitIgnoreSpec | None:
        if place not in self._specs:
            lines = [line for name in FILES for line in self._lines(place, name)]
            self._specs[place] = _compile(lines, place) if lines else None
        return self._specs[place]

    def _lines(self, place: bytes, name: str) -> Iterable[str]:
        path = self._root / os.fsdecode(place) / name
        try:
            if path.is_symlink() or not path.is_file():
                return ()
            with path.open("rb") as stream:
                data = stream.read(SIZE_MOST + 1)
        except OSError as error:
            raise SourceUnreadable(f"cannot read {path}: {error.strerror}") from error
        if len(data) > SIZE_MOST:
            raise InvalidRequest(f"{path} is larger than {SIZE_MOST} bytes, too large for an ignore file")
        return os.fsdecode(data).splitlines()


def _compile(lines: list[str], place: bytes) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InvalidRequest(f"an ignore file in {os.fsdecode(place) or '.'} cannot be understood: {error}") from error
