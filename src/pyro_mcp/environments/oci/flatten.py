"""Layers to one tar stream. Nothing is unpacked on the host, and no privilege is needed.

Two passes: the first reads all names and decides whose file is the one to be seen, the second writes those files. What
is kept in memory is names and directories. sqfstar's traps that the second pass goes round: a name that comes twice,
a directory that comes after its content, a time before 1970, the padding of base64 attributes.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_mcp.environments.oci import tar_writer
from pyro_mcp.environments.oci.layers import Blob, Budget, Limits, unpacked
from pyro_mcp.environments.oci.tar_entry import FILE, LINK, Entry
from pyro_mcp.environments.oci.tar_reader import TarReader
from pyro_mcp.environments.oci.tree import Inode, Tree
from pyro_mcp.host.deadline import Deadline

Write = Callable[[bytes], object]
CHECK_EVERY = 256


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image. *diff_id*: the digest of its tar stream; empty when nobody states one."""

    blob: Blob
    diff_id: str = ""


class Flattened:
    """An image whose names were read and whose layers were all verified. *content_bytes* is what they unpack to."""

    def __init__(self, layers: Sequence[Layer], limits: Limits, deadline: Deadline) -> None:
        self._layers = layers
        self._limits = limits
        self._deadline = deadline
        self._tree = Tree(limits.names)
        budget = Budget(limits)
        for layer in layers:
            self._tree.begin_layer()
            with unpacked(layer.blob, budget, diff_id=layer.diff_id, verify=True) as stream:
                for ordinal, entry in enumerate(TarReader(stream)):
                    self._tree.add(entry, ordinal)
                    self._check(ordinal)
            self._tree.end_layer()
        self.content_bytes = budget.used

    def has(self, path: str) -> bool:
        """Whether *path* names a file in the image, links followed."""
        found = self._tree.find(path.encode())
        return found is not None and found.inode is not None and found.inode.kind == FILE

    def require_directory(self, path: str) -> None:
        """Have the directory *path* in the image."""
        self._tree.require_directory(path.encode())

    def write(self, write: Write) -> None:
        """Write the tar stream: all directories, then the files as they come in the layers."""
        for path, entry in self._tree.directories():
            tar_writer.add(write, _named(entry, path))
        budget = Budget(self._limits)
        for layer, wanted in zip(self._layers, self._tree.files(), strict=True):
            with unpacked(layer.blob, budget, verify=False) as stream:
                self._write_layer(TarReader(stream), wanted, write)
        write(tar_writer.END)

    def _write_layer(self, reader: TarReader, wanted: dict[int, Inode], write: Write) -> None:
        left = len(wanted)
        for ordinal, entry in enumerate(reader):
            if not left:
                return
            self._check(ordinal)
            inode = wanted.get(ordinal)
            if inode is None:
                continue
            left -= 1
            first, *others = inode.paths
            write(tar_writer.header(_named(entry, first)))
            if entry.kind == FILE:
                for piece in reader.content(entry):
                    write(piece)
                write(tar_writer.padding(entry.size))
            for path in others:
                tar_writer.add(write, Entry(path, LINK, entry.mode, entry.uid, entry.gid, entry.mtime, target=first))

    def _check(self, ordinal: int) -> None:
        if ordinal % CHECK_EVERY == 0:
            self._deadline.check("flattening the image")


def _named(entry: Entry, path: bytes) -> Entry:
    entry.path = path
    return entry


def tar_of(flattened: Flattened) -> bytes:
    """The whole stream, for small images."""
    buffer = io.BytesIO()
    flattened.write(buffer.write)
    return buffer.getvalue()
