"""The names in an image: what is left when its layers are laid over each other. Only names and directories are kept.

The rules are those of the OCI image specification. A whiteout hides what lower layers have, never its own layer's
files, wherever in the layer it stands. A name below a symbolic link goes to where the link leads inside the image, as
it does for the tools that unpack layers; nothing here ever touches the host's filesystem.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pyro_mcp.environments.oci.tar_entry import DIRECTORY, LINK, PATH_BYTES_MOST, SYMLINK, Entry, clean, shown
from pyro_mcp.errors import ImageRefused

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
RESERVED = b".wh..wh."  # notes of the tool that made the layer
LINKS_FOLLOWED_MOST = 40
DIRECTORY_MODE = 0o755


@dataclass(slots=True, eq=False)
class Inode:
    """A file of one layer, wherever it is linked. *ordinal* is its place in that layer."""

    layer: int
    ordinal: int
    kind: int
    target: bytes = b""
    paths: list[bytes] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Node:
    """A name. *layer* is the newest that has it. A directory has *children*, and the *entry* that describes it."""

    layer: int
    inode: Inode | None = None
    children: dict[bytes, "Node"] | None = None
    entry: Entry | None = None


class Tree:
    """Layers are added from the lowest to the highest; *most* bounds the names."""

    def __init__(self, most: int) -> None:
        self.root = Node(0, children={})
        self._most = most
        self._made = 0
        self._layer = -1
        self._pending: list[Entry] = []

    def begin_layer(self) -> None:
        """A further layer begins."""
        self._layer += 1

    def end_layer(self) -> None:
        """Resolve the hard links that came before what they name."""
        pending, self._pending = self._pending, []
        for entry in pending:
            self._link(entry, last=True)

    def add(self, entry: Entry, ordinal: int) -> None:
        """Apply one member of the present layer."""
        parts = entry.path.split(b"/") if entry.path else []
        if any(part.startswith(RESERVED) and part != OPAQUE for part in parts):
            return
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise ImageRefused(f"{shown(entry.path)} in a layer lies below a whiteout")
        if parts and parts[-1].startswith(WHITEOUT):
            self._white_out(parts)
        elif entry.kind == LINK:
            self._link(entry, last=False)
        elif entry.kind == DIRECTORY:
            self._directory(entry, parts)
        else:
            self._put(entry, Inode(self._layer, ordinal, entry.kind, entry.target))

    def require_directory(self, path: bytes) -> None:
        """Make the directory *path* if nothing has that name. Something else of that name stays."""
        node = self.root
        for part in clean(path).split(b"/"):
            found = (node.children or {}).get(part)
            if found is None:
                if node.children is None:
                    return
                found = self._new(children={})
                node.children[part] = found
            node = found

    def find(self, path: bytes) -> Node | None:
        """What *path* names in the image, links followed; ``None`` for nothing."""
        return self._walk(path.split(b"/"), make=False, follow_last=True)

    def directories(self) -> Iterator[tuple[bytes, Entry]]:
        """All directories but the root, in order, each after its parent."""
        for path, node in self._all():
            if node.children is not None:
                entry = node.entry or Entry(b"", DIRECTORY, DIRECTORY_MODE, 0, 0, 0)
                yield path, entry

    def files(self) -> list[dict[int, Inode]]:
        """For each layer the inodes whose content is in the image, by their place; each with its names, in order."""
        layers: list[dict[int, Inode]] = [{} for _ in range(self._layer + 1)]
        for path, node in self._all():
            if node.inode is not None:
                node.inode.paths.append(path)
                layers[node.inode.layer][node.inode.ordinal] = node.inode
        return layers

    def _all(self) -> Iterator[tuple[bytes, Node]]:
        """Every name but the root's, in order. No recursion: a path may have two thousand parts."""
        waiting = [(b"", self.root)]
        while waiting:
            path, node = waiting.pop()
            if path:
                yield path, node
            children = sorted((node.children or {}).items(), reverse=True)
            waiting += [(path + b"/" + name if path else name, child) for name, child in children]

    def _new(self, inode: Inode | None = None, children: dict[bytes, Node] | None = None) -> Node:
        self._made += 1
        if self._made > self._most:
            raise ImageRefused(f"the image has more than {self._most} names")
        return Node(self._layer, inode, children)

    def _put(self, entry: Entry, inode: Inode) -> None:
        """Give *inode* the name of *entry*, in place of whatever was there."""
        *parents, name = entry.path.split(b"/") if entry.path else [b""]
        if not name:
            raise ImageRefused("a layer has something else than a directory as its root")
        self._parent(parents, entry.path)[name] = self._new(inode)

    def _directory(self, entry: Entry, parts: list[bytes]) -> None:
        if not parts:
            self.root.entry = entry
            return
        siblings = self._parent(parts[:-1], entry.path)
        node = siblings.get(parts[-1])
        if node is None or node.children is None:
            node = siblings[parts[-1]] = self._new(children={})
        node.layer, node.entry = self._layer, entry

    def _link(self, entry: Entry, *, last: bool) -> None:
        """A further name of a file that is there. It may come later in the same layer, but not later than that."""
        found = self._walk(entry.target.split(b"/"), make=False, follow_last=False)
        if found is None and not last:
            self._pending.append(entry)
        elif found is None:
            names = f"{shown(entry.path)} in a layer is a hard link to {shown(entry.target)}"
            raise ImageRefused(f"{names}, which is missing")
        elif found.inode is None:
            raise ImageRefused(f"{shown(entry.path)} in a layer is a hard link to a directory")
        elif entry.path != entry.target:
            self._put(entry, found.inode)

    def _white_out(self, parts: list[bytes]) -> None:
        """Hide what lower layers have: one name, or all that a directory holds."""
        hidden = parts[-1][len(WHITEOUT) :]
        if parts[-1] != OPAQUE and hidden in (b"", b".", b".."):
            raise ImageRefused("a layer has a whiteout of nothing that can be named")
        parent = self._walk(parts[:-1], make=False, follow_last=True)
        if parent is None or parent.children is None:
            return
        if parts[-1] == OPAQUE:
            self._hide_below(parent)
            return
        node = parent.children.get(hidden)
        if node is None:
            return
        self._hide_below(node)
        if node.layer < self._layer and not node.children:
            del parent.children[hidden]

    def _hide_below(self, top: Node) -> None:
        """Remove what lower layers have below *top*; directories that hold something of this layer stay."""
        order = [top]
        for node in order:
            order += [child for child in (node.children or {}).values() if child.children is not None]
        for node in reversed(order):
            kept = {
                name: child
                for name, child in (node.children or {}).items()
                if child.layer == self._layer or child.children
            }
            if node.children is not None:
                node.children = kept

    def _parent(self, parts: list[bytes], path: bytes) -> dict[bytes, Node]:
        node = self._walk(parts, make=True, follow_last=True)
        if node is None or node.children is None:
            raise ImageRefused(f"{shown(path)} in a layer lies below something that is no directory")
        return node.children

    def _walk(self, parts: list[bytes], *, make: bool, follow_last: bool) -> Node | None:
        """The node at *parts*, links followed inside the image; with *make*, missing directories are made."""
        todo = list(reversed([part for part in parts if part]))
        trail = [self.root]
        followed = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                trail = trail[:-1] or [self.root]
                continue
            children = trail[-1].children
            if children is None:
                return None
            node = children.get(part)
            if node is None:
                if not make:
                    return None
                node = children[part] = self._new(children={})
            if node.inode is not None and node.inode.kind == SYMLINK and (todo or follow_last):
                followed += 1
                if followed > LINKS_FOLLOWED_MOST or len(todo) > PATH_BYTES_MOST:
                    return None
                target = node.inode.target
                trail = [self.root] if target.startswith(b"/") else trail
                todo += [step for step in reversed(target.split(b"/")) if step not in (b"", b".")]
                continue
            trail.append(node)
        return trail[-1]
