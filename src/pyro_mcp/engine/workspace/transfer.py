"""Sending what a plan says, record by record."""

from collections.abc import Iterable

from pyro_mcp.engine.workspace.destination import join
from pyro_mcp.engine.workspace.plan import Plan
from pyro_mcp.engine.workspace.source import Item, ItemKind, Piece, Source
from pyro_mcp.errors import SourceChanged
from pyro_mcp.guest.sync.records import IMPLIED, Kind, Record
from pyro_mcp.guest.sync.stage import Stage
from pyro_mcp.host.progress import Progress


class Transfer:
    """One push on its way. Directories come first, then what is small, the files, and last their further names."""

    def __init__(self, stage: Stage, prefix: bytes, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self._numbers = {b"": 0}
        self._done = 0
        self._total = 0
        place = b""
        for name in prefix.split(b"/") if prefix else ():
            # The destination and what leads to it: made if it is not there, else left as it is.
            parent, place = place, join(place, name)
            record = Record(Kind.DIRECTORY, self._numbers[parent], name, mode=0o755, flags=IMPLIED)
            self._numbers[place] = stage.add(record)
        self._root = self._numbers[place]
        self._numbers = {b"": self._root}

    def send(self, source: Source, items: dict[bytes, Item], plan: Plan) -> None:
        """Send all of *plan*. Raises what the source and the guest raise."""
        for path, item in items.items():
            if path in plan.directories:
                self._directory(item)
        for path in plan.remove:
            self._plain(Kind.REMOVE, Item(path, ItemKind.FILE, mode=0))
        for item in plan.attributes:
            self._plain(Kind.ATTRIBUTES, item)
        kinds: dict[ItemKind, list[Item]] = {kind: [] for kind in ItemKind}
        for item in plan.send:
            kinds[item.kind].append(item)
        for item in kinds[ItemKind.SYMLINK]:
            self._plain(Kind.SYMLINK, item, target=item.target)
        self._total = plan.transferred_bytes
        for item, pieces in source.read({item.path for item in kinds[ItemKind.FILE]}):
            self._file(item, pieces)
        for item in kinds[ItemKind.LINK]:
            parent, name = self._place(item.target)
            self._plain(Kind.LINK, item, target=name, target_dir=parent)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self._numbers[parent], name

    def _directory(self, item: Item) -> None:
        parent, name = self._place(item.path)
        flags = IMPLIED if item.implied else 0
        record = Record(Kind.DIRECTORY, parent, name, item.mode, item.mtime_ns, flags=flags)
        self._numbers[item.path] = self._stage.add(record)

    def _plain(self, kind: Kind, item: Item, *, target: bytes = b"", target_dir: int = 0) -> None:
        parent, name = self._place(item.path)
        self._stage.add(Record(kind, parent, name, item.mode, item.mtime_ns, target=target, target_dir=target_dir))

    def _file(self, item: Item, pieces: Iterable[Piece]) -> None:
        parent, name = self._place(item.path)
        self._stage.add(Record(Kind.FILE, parent, name, item.mode, item.mtime_ns, item.size))
        left = item.size
        for piece in pieces:
            size = len(piece.data) or piece.hole
            left -= size
            if left < 0:
                break
            if piece.data:
                self._stage.data(piece.data)
            else:
                self._stage.add(Record(Kind.HOLE, size=piece.hole))
            self._done += size
            self._progress.advance(self._done, self._total)
        if left:
            raise SourceChanged(f"{item.path.decode(errors='replace')} changed while it was read")
