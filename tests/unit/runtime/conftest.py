"""Small real inputs: a kernel in a bzImage, modules, a kernel package, an agent."""

import gzip
import hashlib
import io
import lzma
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard

from pyro_mcp.config import Settings, load
from pyro_mcp.paths import Paths

RELEASE = "6.1.0-99-cloud-amd64"
MODULE_DEPENDS = {
    "virtio_ring": "",
    "virtio": "virtio_ring",
    "virtio_mmio": "virtio,virtio_ring",
    "virtio_blk": "virtio,virtio_ring",
    "virtio_console": "virtio,virtio_ring",
    "squashfs": "",
    "overlay": "",
    "vsock": "",
    "vmw_vsock_virtio_transport": "virtio,vsock,virtio_ring",
    "virtio_net": "virtio_ring,virtio",
    "virtio-rng": "virtio,virtio_ring",
    "virtio_balloon": "virtio",
}


def elf(content: bytes, *, machine: int = 62) -> bytes:
    """An x86-64 ELF executable with one segment that holds *content*."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 120, 0x1000000, 0x1000000, len(content), len(content), 4096)
    return header + segment + content


KERNEL = elf(os.urandom(1000) + bytes(9 << 20) + b"the end")  # more than one LZ4 block
SMALL_KERNEL = elf(os.urandom(5000))


def lz4_legacy(data: bytes) -> bytes:
    """As ``lz4 -l`` writes it."""
    blocks = [data[start : start + (8 << 20)] for start in range(0, len(data), 8 << 20)]
    packed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(block)) + block for block in packed)


def zstd_stream(data: bytes) -> bytes:
    """As ``zstd`` writes it from a pipe: without the length of the content."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lambda data: lz4_legacy(data) + struct.pack("<I", len(data)),
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32) + struct.pack("<I", len(data)),
    "zstd": lambda data: zstd_stream(data) + struct.pack("<I", len(data)),
    "gzip": gzip.compress,  # its trailer is the length already
}


def bzimage(payload: bytes, *, sectors: int = 3, length: int | None = None) -> bytes:
    """A bzImage whose setup header leads to *payload*."""
    setup = bytearray((sectors or 4) * 512 + 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x020F)
    before = b"decompressor" * 20
    struct.pack_into("<II", setup, 0x248, len(before), len(payload) if length is None else length)
    return bytes(setup) + before + payload + bytes(64)


def module(name: str, depends: str = "") -> bytes:
    """A kernel module's ELF file: a .modinfo section is all that is looked at."""
    modinfo = f"license=GPL\0depends={depends}\0name={name}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    table = 64 + len(modinfo) + len(names)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(modinfo), 0, 0, 1, 0)
    sections += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(modinfo), len(names), 0, 0, 1, 0)
    return header + modinfo + names + sections


def kernel_files() -> dict[str, bytes]:
    """What a small kernel package holds."""
    root = f"./usr/lib/modules/{RELEASE}"
    files = {f"{root}/kernel/drivers/{name}.ko": module(name, needs) for name, needs in MODULE_DEPENDS.items()}
    files[f"./boot/vmlinuz-{RELEASE}"] = bzimage(COMPRESSIONS["lz4"](SMALL_KERNEL))
    files[f"{root}/modules.builtin"] = b"kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\n"
    return files


def deb(files: dict[str, bytes]) -> bytes:
    """A Debian package (deb(5)) of *files*."""
    members = {"debian-binary": b"2.0\n", "control.tar": _tar({"./control": b"Package: linux-image\n"})}
    members["data.tar"] = _tar(files)
    archive = bytearray(b"!<arch>\n")
    for name, data in members.items():
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        archive += b"\n" * (len(data) % 2)
    return bytes(archive)


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def keep_kernel(paths: Paths, package: bytes) -> None:
    """Put *package* where a fetched kernel package is kept, as the runtime would find it there."""
    from pyro_mcp.runtime import kernel

    paths.runtimes.mkdir(parents=True, exist_ok=True)
    arrived = paths.runtimes / "arrived.deb"
    arrived.write_bytes(package)
    digest = hashlib.sha256(package).hexdigest()
    kernel.keep(paths, arrived, package=f"linux-image-{RELEASE}", version="6.1.99-1", sha256=digest)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "cache", tmp_path / "environments")


@pytest.fixture
def settings() -> Settings:
    return load({})


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "pyro-agent"
    path.write_bytes(elf(b"an agent"))
    path.chmod(0o755)
    return path


@pytest.fixture
def kernel_kept(paths: Paths) -> None:
    keep_kernel(paths, deb(kernel_files()))
