"""Kernel modules: which a guest needs, what they depend on, and the order that loads."""

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pyro_mcp.errors import RuntimeBroken

MODULE_MOST = 32 << 20
MEMORY_MOST = 256 << 20
FILE_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.+-]{0,100})\.ko(\.xz|\.zst)?")


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module. *name* is the kernel's (``_`` for ``-``), *file* its name in the initramfs."""

    name: str
    file: str
    data: bytes
    depends: tuple[str, ...]


def module_name(file: str) -> str | None:
    """The module in a file of this name; ``None`` when it is not a module."""
    match = FILE_NAME.fullmatch(file)
    return match[1].replace("-", "_") if match else None


def builtin_names(text: str) -> frozenset[str]:
    """The modules that are part of the kernel, from ``modules.builtin``."""
    names = (module_name(line.strip().rpartition("/")[2]) for line in text.splitlines())
    return frozenset(name for name in names if name)


def select(wanted: Iterable[str], find: Callable[[str], Module | None], builtin: frozenset[str]) -> list[Module]:
    """The *wanted* modules and all they depend on, dependencies first, otherwise in the order given.

    *find* gives the module of a name. Raises RuntimeBroken for a module that is neither there nor built in,
    and for a cycle.
    """
    order: dict[str, Module] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in builtin or name in order:
            return
        if name in path:
            raise RuntimeBroken(f"kernel modules depend on each other: {' > '.join([*path, name])}")
        module = find(name)
        if module is None:
            needed = f", which {path[-1]} needs" if path else ""
            raise RuntimeBroken(f"the kernel package has no module {name}{needed}")
        for dependency in module.depends:
            add(dependency, (*path, name))
        order[name] = module

    for name in wanted:
        add(name, ())
    return list(order.values())


def parse(file: str, raw: bytes) -> Module:
    """The module in *raw*, content of a ``.ko``, ``.ko.xz`` or ``.ko.zst`` file; raises RuntimeBroken."""
    name = module_name(file)
    if name is None:
        raise RuntimeBroken(f"{file!r:.120} is not the name of a kernel module")
    data = _plain(file, raw)
    depends = modinfo(data, file).get("depends", "")
    return Module(name, f"{name}.ko", data, tuple(word.replace("-", "_") for word in depends.split(",") if word))


def _plain(name: str, raw: bytes) -> bytes:
    """The ELF file in *raw*, with at most MODULE_MOST bytes."""
    import lzma  # with the next, too slow to load for who only uses a runtime

    import zstandard

    try:
        if name.endswith(".xz"):
            decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_MOST)
            data = decompressor.decompress(raw, MODULE_MOST + 1)
        elif name.endswith(".zst"):
            with zstandard.ZstdDecompressor().stream_reader(raw) as reader:
                data = reader.read(MODULE_MOST + 1)
        else:
            data = raw
    except (lzma.LZMAError, zstandard.ZstdError) as error:
        raise RuntimeBroken(f"the kernel module {name} is damaged: {error}") from error
    if len(data) > MODULE_MOST:
        raise RuntimeBroken(f"the kernel module {name} is larger than {MODULE_MOST >> 20} MiB")
    return data


def modinfo(data: bytes, name: str) -> dict[str, str]:
    """The ``key=value`` strings of section .modinfo; of a repeated key, the last. Raises RuntimeBroken."""
    try:
        section = _section(data, b".modinfo")
    except (struct.error, ValueError) as error:
        raise RuntimeBroken(f"the kernel module {name} is damaged") from error
    pairs = (entry.decode(errors="replace").partition("=") for entry in section.split(b"\0") if b"=" in entry)
    return {key: value for key, _, value in pairs}


def _section(data: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file (elf(5)); ValueError or struct.error if there is none."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 58)
    if entry_size != 64 or names_index >= count or table + 64 * count > len(data):
        raise ValueError("section headers outside the file")
    headers = [struct.unpack_from("<IIQQQQ", data, table + 64 * number) for number in range(count)]
    names_start, names_size = headers[names_index][4:6]
    names = data[names_start : names_start + names_size]
    for name_offset, _, _, _, start, size in headers:
        if names[name_offset : name_offset + len(wanted) + 1] == wanted + b"\0":
            if start + size > len(data):
                raise ValueError("a section outside the file")
            return data[start : start + size]
    raise ValueError(f"no section {wanted.decode()}")
