"""What is pushed: the entries of a directory or of an archive, parents first, and their contents."""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from pyro_mcp.engine.workspace.options import NOTES_MOST, PushOptions, SourceMode
from pyro_mcp.errors import InvalidRequest, SourceUnreadable

ARCHIVES = (".tar", ".tar.gz", ".tgz")
ZEROS = memoryview(bytes(1 << 20))
MODE_BITS = 0o777  # set-id and sticky bits do not travel: in the guest the owner is root


class ItemKind(Enum):
    """What an entry is. LINK: another name of a file that came before."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symbolic link"
    LINK = "hard link"


@dataclass(slots=True)
class Item:
    """One entry. *size* counts a file's bytes, *stored* those that are not in holes.

    *target* is a symbolic link's text, or the path of a hard link's file. *implied* directories are only on the way to
    something: they have no attributes of their own. *identity* is the source's own business.
    """

    path: bytes
    kind: ItemKind
    mode: int = 0o755
    mtime_ns: int = 0
    size: int = 0
    stored: int = 0
    target: bytes = b""
    implied: bool = False
    identity: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a file, or a hole of *hole* bytes."""

    data: bytes
    hole: int = 0


@dataclass(slots=True)
class Contents:
    """A whole source: entries by path, parents first; *count* and *bytes* as the contract has them."""

    items: dict[bytes, Item] = field(default_factory=dict)
    count: int = 0
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    muted: int = 0

    def add(self, item: Item, options: PushOptions) -> None:
        """Take an entry. Raises InvalidRequest beyond the limits."""
        self.items[item.path] = item
        self.count += not item.implied
        if len(self.items) > options.max_entries:
            raise InvalidRequest(
                f"the source has more than {options.max_entries} entries",
                remedy="Push a part of it, leave some out with --respect-ignore, or raise the limit on entries.",
            )
        self.bytes += item.size
        if self.bytes > options.max_bytes:
            raise InvalidRequest(
                f"the files of the source have more than {options.max_bytes} bytes, at {shown(item.path)}",
                remedy="Push a part of them, leave some out with --respect-ignore, or raise the limit on bytes.",
            )

    def warn(self, text: str) -> None:
        """Note what the user should know; the first of many are kept."""
        if len(self.warnings) < NOTES_MOST:
            self.warnings.append(text)
        else:
            self.muted += 1

    def notes(self) -> tuple[str, ...]:
        """All warnings, the last of which may count those that were not kept."""
        return (*self.warnings, *([f"{self.muted} more warnings"] if self.muted else []))


class Source(Protocol):
    """A directory or an archive, open."""

    mode: SourceMode
    path: Path

    def scan(self) -> Contents:
        """Look at everything, read no file. Comes first."""

    def read(self, wanted: Collection[bytes]) -> Iterator[tuple[Item, Iterator[Piece]]]:
        """The contents of these FILE entries, in the source's order; each is to be taken whole before the next."""

    def verify(self) -> None:
        """Raise SourceChanged unless the source is still what was scanned."""

    def leaves_out(self, path: bytes, *, directory: bool) -> bool:
        """Whether an ignore file names *path*, so that a deletion must leave it alone."""


def open_source(source: Path, prefix: bytes, options: PushOptions) -> AbstractContextManager[Source]:
    """The directory or archive at *source*; its entries will stand below *prefix* in the workspace.

    Raises SourceUnreadable, or InvalidRequest when it is neither.
    """
    path = Path(os.path.abspath(source.expanduser()))  # noqa: PTH100 - as the user wrote it, links and all
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceUnreadable(f"cannot read {shown(os.fsencode(path))}: {reason}") from error
    if stat.S_ISDIR(kind):
        from pyro_mcp.engine.workspace.directory import DirectorySource

        return DirectorySource(path, prefix, options)
    if stat.S_ISREG(kind) and path.name.endswith(ARCHIVES):
        from pyro_mcp.engine.workspace.archive import ArchiveSource

        return ArchiveSource(path, prefix, options)
    raise InvalidRequest(
        f"{shown(os.fsencode(path))} is neither a directory nor an archive",
        remedy=f"Give a directory, or a file that ends in {', '.join(ARCHIVES)}.",
    )


def digest(pieces: Iterator[Piece]) -> bytes:
    """The SHA-256 of a file's contents."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece.data)
        for start in range(0, piece.hole, len(ZEROS)):
            total.update(ZEROS[: piece.hole - start])
    return total.digest()


def shown(path: bytes) -> str:
    """*path* on one line, for people."""
    text = path.decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text[:400])
