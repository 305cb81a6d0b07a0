"""The initramfs is a reproducible cpio archive that cpio(1) reads as intended."""

import stat
from pathlib import Path

from tests.unit.runtime.conftest import module

from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.runtime.initramfs import build
from pyro_mcp.runtime.modules import parse


def unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each entry, read by the letter of the format."""
    entries: dict[str, tuple[int, bytes]] = {}
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, *_, name_size, _ = fields
        name = archive[position + 110 : position + 110 + name_size - 1].decode()
        start = position + 110 + name_size
        start += -start % 4
        if name == "TRAILER!!!":
            assert archive[start:].strip(b"\0") == b""
            return entries
        assert (uid, gid, mtime) == (0, 0, 0)
        entries[name] = (mode, archive[start : start + size])
        position = start + size
        position += -position % 4


FIRST, SECOND, LAB = (parse(f"{name}.ko", module(name)) for name in ("virtio_ring", "virtio", "tun"))


def test_it_holds_the_agent_the_modules_and_their_order() -> None:
    entries = unpacked(build(b"agent", [FIRST, SECOND], extra=[LAB]))
    assert list(entries) == ["init", "m", "m/tun.ko", "m/virtio.ko", "m/virtio_ring.ko", "modules"]
    assert entries["init"] == (stat.S_IFREG | 0o755, b"agent")
    assert entries["m"] == (stat.S_IFDIR | 0o755, b"")
    assert entries["m/virtio.ko"] == (stat.S_IFREG | 0o644, SECOND.data)
    assert entries["modules"][1] == b"virtio_ring.ko\nvirtio.ko\n"


def test_the_same_input_gives_the_same_bytes() -> None:
    assert build(b"agent", [FIRST, SECOND]) == build(b"agent", [FIRST, SECOND])


def test_the_order_of_loading_is_part_of_it() -> None:
    assert build(b"agent", [FIRST, SECOND]) != build(b"agent", [SECOND, FIRST])


def test_cpio_lists_the_same_names(tmp_path: Path) -> None:
    archive = tmp_path / "initramfs.cpio"
    archive.write_bytes(build(b"agent" * 1000, [FIRST, SECOND]))
    with archive.open("rb") as stream:
        listing = proc.run(["busybox", "cpio", "-t"], Deadline.after(30), stdin=stream)
    assert listing.stdout.split() == [b"init", b"m", b"m/virtio.ko", b"m/virtio_ring.ko", b"modules"]
