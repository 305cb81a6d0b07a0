"""What the guest has in its workspace: the listing of a tree, and its contents. The guest is hostile."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pyro_mcp.errors import GuestProtocol, InvalidRequest
from pyro_mcp.guest.answers import Answer, printable, read_object, refusal
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.operations import b64, encode_request, exchange
from pyro_mcp.guest.sync.records import PATH_MOST, Kind, Record, unpack
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline

WalkKind = Literal["absent", "file", "directory"]
MODE_MOST = 0o7777
DIGEST_SIZE = 32
PATHS_MOST = 256 << 20  # bytes; on the wire a name of one byte may stand for a path of PATH_MOST
PATHS_AT_ONCE = 1000
PATH_BYTES_AT_ONCE = 96 << 10
_FROM_GUEST = frozenset({Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.LINK, Kind.OTHER})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a guest may send: entries, and the sizes of its files together."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GuestEntry:
    """One entry of a listing. *target*: a symbolic link's text, or the path of the file whose name a hard link is."""

    kind: Kind
    mode: int
    mtime_ns: int
    size: int
    target: bytes


class Walk:
    """One ``tree`` or ``fetch`` on a session: ask, then take :attr:`kind`, then all of :meth:`records`.

    The records are in order: numbers of directories are known, names are no paths, a hard link's file came before it,
    files have exactly the bytes they announce.
    """

    def __init__(self, session: Session, path: bytes, *, contents: bool, limits: Limits, deadline: Deadline) -> None:
        self._session = session
        self._contents = contents
        self._limits = limits
        self._deadline = deadline
        self._op = "fetch" if contents else "tree"
        self._directories = [b""]
        self._files: set[tuple[int, bytes]] = set()
        self._paths = 0
        self._left = 0
        self.entries = 0
        self.bytes = 0
        self.changed = 0
        session.send_frame(FrameType.REQUEST, encode_request(self._op, {"path": b64(path)}), deadline)
        self.kind: WalkKind = self._first()

    def path(self, record: Record) -> bytes:
        """Where a record of this walk is, from its root on."""
        return _join(self._directories[record.dir], record.name)

    def target_path(self, record: Record) -> bytes:
        """The file whose content a LINK shares."""
        return _join(self._directories[record.target_dir], record.target)

    def records(self) -> Iterator[Record]:
        """All records. Raises GuestProtocol, AgentRefused, or InvalidRequest beyond the limits."""
        while True:
            frame = self._session.receive_frame(self._deadline)
            if frame.kind is FrameType.RESPONSE:
                self._last(read_object(frame.payload, self._op))
                return
            if frame.kind is FrameType.ERROR:
                raise refusal(frame.payload)
            if frame.kind is not FrameType.ENTRIES:
                raise GuestProtocol(f"the guest answered {self._op} with a frame of kind {frame.kind.name}")
            for record in unpack(frame.payload):
                self._check(record)
                yield record

    def _first(self) -> WalkKind:
        frame = self._session.receive_frame(self._deadline)
        if frame.kind is FrameType.ERROR:
            raise refusal(frame.payload)
        if frame.kind is not FrameType.RESPONSE:
            raise GuestProtocol(f"the guest answered {self._op} with a frame of kind {frame.kind.name}")
        kind = read_object(frame.payload, self._op).text("kind", 16)
        if kind == "absent":
            return "absent"
        if kind == "file":
            return "file"
        if kind == "directory":
            return "directory"
        raise GuestProtocol(f"the guest sent a wrong kind in {self._op}")

    def _last(self, answer: Answer) -> None:
        if self._left:
            raise GuestProtocol("the guest sent a file that is shorter than it said")
        self.changed = answer.integer("changed")
        if answer.integer("records") != self.entries:
            raise GuestProtocol("the guest sent another number of entries than it says")

    def _check(self, record: Record) -> None:
        if record.kind is Kind.DATA or record.kind is Kind.HOLE:
            self._check_content(record)
            return
        if self._left:
            raise GuestProtocol("the guest sent a file that is shorter than it said")
        if record.kind not in _FROM_GUEST or record.dir >= len(self._directories) or record.mode > MODE_MOST:
            raise GuestProtocol("the guest sent a record that has no place")
        self.entries += 1
        if self.entries > self._limits.entries:
            raise InvalidRequest(
                f"there are more than {self._limits.entries} entries in the guest",
                remedy="Ask for a part of it, or raise the limit on entries.",
            )
        path = self.path(record)
        if len(path) > PATH_MOST:
            raise GuestProtocol("the guest sent a path that is too long")
        if record.kind is Kind.DIRECTORY:
            self._directories.append(path)
        elif record.kind is Kind.FILE:
            self._check_file(record)
        elif record.kind is Kind.LINK and (record.target_dir, record.target) not in self._files:
            raise GuestProtocol("the guest sent a hard link to a file it had not sent")
        self._check_paths(record, path)

    def _check_paths(self, record: Record, path: bytes) -> None:
        """Bound what is kept: of contents the paths of directories, of a tree all paths and what links lead to."""
        if record.kind is Kind.DIRECTORY or not self._contents:
            self._paths += len(path)
        if not self._contents:
            self._paths += len(self.target_path(record) if record.kind is Kind.LINK else record.target)
        if self._paths > PATHS_MOST:
            raise InvalidRequest(
                f"the paths in the guest have more than {PATHS_MOST} bytes together",
                remedy="Use a directory below, with fewer or shorter paths in it.",
            )

    def _check_file(self, record: Record) -> None:
        self._files.add((record.dir, record.name))
        self.bytes += record.size
        if self._contents:
            if self.bytes > self._limits.bytes:
                raise InvalidRequest(
                    f"the files in the guest have more than {self._limits.bytes} bytes, at "
                    f"{printable(self.path(record).decode(errors='replace'), 200)}",
                    remedy="Ask for a part of them, or raise the limit on bytes.",
                )
            self._left = record.size

    def _check_content(self, record: Record) -> None:
        size = len(record.data) if record.kind is Kind.DATA else record.size
        if not 0 < size <= self._left:
            raise GuestProtocol("the guest sent content that belongs to no file")
        self._left -= size


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def listing(walk: Walk) -> dict[bytes, GuestEntry]:
    """All entries of a ``tree``, parents first, by path. Raises GuestProtocol when one comes twice."""
    found: dict[bytes, GuestEntry] = {}
    for record in walk.records():
        target, size = record.target, record.size
        if record.kind is Kind.LINK:
            target = walk.target_path(record)
            size = found[target].size
        entry = GuestEntry(record.kind, record.mode, record.mtime_ns, size, target)
        if found.setdefault(walk.path(record), entry) is not entry:
            raise GuestProtocol("the guest listed an entry twice")
    return found


def digests(session: Session, paths: Sequence[bytes], deadline: Deadline) -> Iterator[bytes | None]:
    """The SHA-256 of each of *paths* (from the workspace on) in the guest; ``None`` for what is no regular file."""
    for batch in _batches(paths):
        answer = exchange(session, "digests", {"paths": [b64(path) for path in batch]}, deadline)
        values = answer.optional_texts("digests", len(batch), 2 * DIGEST_SIZE)
        if len(values) != len(batch):
            raise GuestProtocol("the guest sent another number of digests than asked for")
        for value in values:
            yield None if value is None else _digest(value)


def _batches(paths: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    batch: list[bytes] = []
    size = 0
    for path in paths:
        if batch and (len(batch) == PATHS_AT_ONCE or size + len(path) > PATH_BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += len(path)
    if batch:
        yield batch


def _digest(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise GuestProtocol("the guest sent a wrong digest") from error
    if len(value) != DIGEST_SIZE:
        raise GuestProtocol("the guest sent a wrong digest")
    return value
