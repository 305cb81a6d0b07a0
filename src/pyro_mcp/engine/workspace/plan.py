"""What a push has to do: the source's entries against the guest's. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pyro_mcp.engine.workspace.destination import full, join
from pyro_mcp.engine.workspace.source import MODE_BITS, Item, ItemKind
from pyro_mcp.errors import SyncConflict
from pyro_mcp.guest.sync.records import Kind
from pyro_mcp.guest.sync.walk import GuestEntry

CONFLICTS_SHOWN = 10
_SAME_KIND = {ItemKind.FILE: Kind.FILE, ItemKind.SYMLINK: Kind.SYMLINK, ItemKind.DIRECTORY: Kind.DIRECTORY}
Protects = Callable[[bytes, bool], bool]


@dataclass(slots=True)
class Plan:
    """Paths from the destination on, in the source's order. *doubtful* files have to be compared by content first."""

    send: list[Item] = field(default_factory=list)
    attributes: list[Item] = field(default_factory=list)
    directories: set[bytes] = field(default_factory=set)  # to send: new, changed, or on the way to something
    remove: list[bytes] = field(default_factory=list)
    doubtful: list[Item] = field(default_factory=list)
    dressed: set[bytes] = field(default_factory=set)  # of the doubtful: those whose attributes are right
    names: dict[bytes, list[Item]] = field(default_factory=dict)  # further names of files, by their first one
    changed_directories: list[Item] = field(default_factory=list)
    fresh: set[bytes] = field(default_factory=set)  # what the guest does not have
    removed_entries: int = 0
    new_directories: int = 0

    def settle(self, same: Callable[[Item], bool]) -> None:
        """Decide the doubtful: those with the *same* content only get attributes."""
        for item in self.doubtful:
            if not same(item):
                self.transfer(item)
            elif item.path not in self.dressed:
                self.dress(item)
        self.doubtful = []

    def transfer(self, item: Item) -> None:
        """Send it, with all its names."""
        for one in (item, *self.names.get(item.path, ())):
            self.send.append(one)
            self.need(one.path)

    def dress(self, item: Item) -> None:
        """Change its attributes only."""
        self.attributes.append(item)
        self.need(item.path)

    @property
    def transferred_entries(self) -> int:
        """Entries that cross the link."""
        return len(self.send) + self.new_directories

    @property
    def transferred_bytes(self) -> int:
        """The sizes of the files that cross the link."""
        return sum(item.size for item in self.send)

    @property
    def updated_entries(self) -> int:
        """Entries of which only attributes change."""
        return len(self.attributes) + len(self.changed_directories) - self.new_directories

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.send or self.attributes or self.directories or self.remove)

    def need(self, path: bytes) -> None:
        """The directories above it have to be sent."""
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if path in self.directories:
                return
            self.directories.add(path)


def make_plan(
    items: dict[bytes, Item],
    guest: dict[bytes, GuestEntry],
    *,
    delete: bool,
    by_content: bool,
    protects: Protects,
    prefix: bytes = b"",
) -> Plan:
    """Compare. Raises SyncConflict when a directory and something else want the same name, unless *delete*.

    *by_content*: a file of the same size and time is doubtful, too.
    """
    plan = Plan()
    clashes = sorted(path for path, item in items.items() if _clash(item, guest.get(path)))
    if clashes and not delete:
        raise _conflict(clashes, items, prefix)
    gone = _deletions(items, guest, clashes, protects) if delete else []
    removed = _spread(gone, guest)
    retied = _retied(items, guest, removed)
    for item in items.values():
        if item.kind is ItemKind.LINK:
            plan.names.setdefault(item.target, []).append(item)
    for item in items.values():
        there = None if item.path in removed or item.path in retied else guest.get(item.path)
        if item.kind is ItemKind.DIRECTORY:
            _compare_directory(plan, item, there)
        elif item.kind is not ItemKind.LINK:  # those go with their file
            _compare(plan, item, there, by_content=by_content)
    plan.fresh = {path for path in items if path not in guest or path in removed}
    plan.remove = gone
    for path in gone:
        plan.need(path)
    plan.removed_entries = len(removed)
    return plan


def _compare(plan: Plan, item: Item, there: GuestEntry | None, *, by_content: bool) -> None:
    if there is None or not _same_thing(item, there):
        plan.transfer(item)
        return
    same_time = there.mtime_ns == item.mtime_ns
    dressed = same_time and (item.kind is not ItemKind.FILE or there.mode & MODE_BITS == item.mode)
    if item.size and (by_content or not same_time):
        plan.doubtful.append(item)
        if dressed:
            plan.dressed.add(item.path)
    elif not dressed:
        plan.dress(item)


def _compare_directory(plan: Plan, item: Item, there: GuestEntry | None) -> None:
    if there is None:
        plan.new_directories += not item.implied
    elif item.implied or (there.mode & MODE_BITS == item.mode and there.mtime_ns == item.mtime_ns):
        return
    if not item.implied:
        plan.changed_directories.append(item)
    plan.directories.add(item.path)
    plan.need(item.path)


def _same_thing(item: Item, there: GuestEntry) -> bool:
    """The same but for attributes, as far as can be seen without looking at contents."""
    if item.kind is ItemKind.SYMLINK:
        return there.kind is Kind.SYMLINK and there.target == item.target
    return there.kind in (Kind.FILE, Kind.LINK) and there.size == item.size


def _clash(item: Item, there: GuestEntry | None) -> bool:
    return there is not None and (item.kind is ItemKind.DIRECTORY) != (there.kind is Kind.DIRECTORY)


def _conflict(clashes: list[bytes], items: dict[bytes, Item], prefix: bytes) -> SyncConflict:
    def line(path: bytes) -> str:
        if items[path].kind is ItemKind.DIRECTORY:
            return f"{full(join(prefix, path))} is no directory in the guest, and one in the source"
        return f"{full(join(prefix, path))} is a directory in the guest, and a {items[path].kind.value} in the source"

    return SyncConflict(line(clashes[0]), details=[line(path) for path in clashes[1:CONFLICTS_SHOWN]])


def _deletions(
    items: dict[bytes, Item], guest: dict[bytes, GuestEntry], clashes: list[bytes], protects: Protects
) -> list[bytes]:
    """What is to be removed with all that is in it: the guest's entries that the source lacks, and those in its way."""
    gone: set[bytes] = set(clashes)
    inside: set[bytes] = set(clashes)
    for path, entry in guest.items():  # parents first
        if path.rpartition(b"/")[0] in inside:
            inside.add(path)
        elif path not in items and path not in gone:
            if protects(path, entry.kind is Kind.DIRECTORY):
                continue
            gone.add(path)
            inside.add(path)
    return [path for path in guest if path in gone and path.rpartition(b"/")[0] not in inside]


def _spread(gone: list[bytes], guest: dict[bytes, GuestEntry]) -> set[bytes]:
    """All entries that go with *gone*."""
    removed = set(gone)
    for path in guest if gone else ():
        if path.rpartition(b"/")[0] in removed:
            removed.add(path)
    return removed


def _retied(items: dict[bytes, Item], guest: dict[bytes, GuestEntry], removed: set[bytes]) -> set[bytes]:
    """Files (by their first name) whose names are tied together otherwise than in the guest: they are sent anew."""
    ours = {path: item.target for path, item in items.items() if item.kind is ItemKind.LINK}
    theirs = {path: entry.target for path, entry in guest.items() if entry.kind is Kind.LINK and path not in removed}

    def their_first(path: bytes) -> bytes | None:
        entry = None if path in removed else guest.get(path)
        return None if entry is None or entry.kind not in (Kind.FILE, Kind.LINK) else theirs.get(path, path)

    changed = {first for path, first in ours.items() if their_first(path) != their_first(first)}
    changed |= {first for first in ours.values() if their_first(first) is None}
    tied: dict[bytes, bytes] = {}  # the guest's first name of a file -> ours
    for path in (*theirs, *theirs.values()):
        item = items.get(path)
        if item is None or item.kind not in (ItemKind.FILE, ItemKind.LINK):
            continue
        first = ours.get(path, path)
        known = tied.setdefault(theirs.get(path, path), first)
        if known != first:
            changed |= {known, first}
    return changed
