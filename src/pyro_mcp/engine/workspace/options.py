"""What a push or a pull is asked to do, and what it did."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

ENTRIES_MOST = 500_000
BYTES_MOST = 8 << 30
CHANGES_MOST = 1000  # of these a result names; the counts are always whole
NOTES_MOST = 100

SourceMode = Literal["directory", "tar_archive"]
Action = Literal["create", "replace", "attributes", "delete"]


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How to push.

    *delete* removes from the destination what the source does not have (but not what *respect_ignore* leaves out).
    *dry_run* says what would change and changes nothing. *respect_ignore* leaves out what ``.gitignore`` and
    ``.pyroignore`` files name. *max_entries* and *max_bytes* (the files' sizes together) bound the source.
    """

    delete: bool = False
    dry_run: bool = False
    respect_ignore: bool = False
    max_entries: int = ENTRIES_MOST
    max_bytes: int = BYTES_MOST


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How to pull. *replace* takes the place of what stands at the destination, whole.

    *max_entries* and *max_bytes* (the files' sizes together) bound what the guest may send.
    """

    replace: bool = False
    max_entries: int = ENTRIES_MOST
    max_bytes: int = BYTES_MOST


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be, to one path (below ``/workspace``; not UTF-8: with ``surrogateescape``)."""

    action: Action
    path: str


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a push did, or would do.

    *entry_count* and *bytes_written* describe the whole source: its entries, and the sizes of its regular files. Of
    these, *transferred_entries* crossed the link with *transferred_bytes* of content, *updated_entries* only got
    another mode or time, *unchanged_entries* were there already. *deleted_entries* counts what was removed, a tree with
    all that was in it. *changes* names the first of them, *warnings* what was left out and why.
    """

    mode: SourceMode
    source_path: str
    destination: str
    entry_count: int
    bytes_written: int
    transferred_entries: int
    transferred_bytes: int
    updated_entries: int
    deleted_entries: int
    unchanged_entries: int
    dry_run: bool
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "changes": [asdict(one) for one in self.changes], "warnings": list(self.warnings)}


@dataclass(frozen=True, slots=True)
class PullResult:
    """What a pull brought: *mode* says whether *source_path* was a file or a directory in the guest."""

    mode: Literal["file", "directory"]
    source_path: str
    destination: str
    entry_count: int
    bytes_written: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "warnings": list(self.warnings)}
