"""The initramfs: our agent as ``/init``, the kernel modules below ``/m``, and their order in ``/modules``.

The same input gives the same bytes: names sorted, no times, owner root. It is not compressed, because
unpacking it in a guest under CPU emulation costs more than reading it. Format: Linux,
Documentation/driver-api/early-userspace/buffer-format.rst (newc).
"""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyro_mcp.runtime.modules import Module

MODULES = "m"
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the archive: its mode with the type bits, and its content."""

    mode: int
    data: bytes = b""


def build(agent: bytes, modules: Sequence[Module], extra: Sequence[Module] = ()) -> bytes:
    """The archive. *modules* are loaded at boot, in this order; *extra* only lie below ``/m``."""
    entries = {
        "init": Entry(stat.S_IFREG | 0o755, agent),
        "modules": Entry(stat.S_IFREG | 0o644, "".join(f"{module.file}\n" for module in modules).encode()),
        MODULES: Entry(stat.S_IFDIR | 0o755),
    }
    for module in (*extra, *modules):
        entries[f"{MODULES}/{module.file}"] = Entry(stat.S_IFREG | 0o644, module.data)
    return newc(entries)


def newc(entries: Mapping[str, Entry]) -> bytes:
    """A cpio archive in the format newc, its length a multiple of 512."""
    archive = bytearray()
    for number, name in enumerate(sorted(entries), start=1):
        entry = entries[name]
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        _append(archive, name, entry, number, links)
    _append(archive, "TRAILER!!!", Entry(0), 0, 1)
    archive += bytes(-len(archive) % BLOCK)
    return bytes(archive)


def _append(archive: bytearray, name: str, entry: Entry, number: int, links: int) -> None:
    encoded = name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(encoded), 0)
    archive += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    archive += bytes(-len(archive) % 4)
    archive += entry.data
    archive += bytes(-len(archive) % 4)
