"""Modules are found by name, with what they need, in an order that loads."""

import lzma
import struct

import pytest
import zstandard
from tests.unit.runtime.conftest import MODULE_DEPENDS, module

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.runtime.modules import Module, builtin_names, modinfo, parse, select
from pyro_mcp.runtime.recipe import WANTED


def find(name: str) -> Module | None:
    known = {key.replace("-", "_"): (key, needs) for key, needs in MODULE_DEPENDS.items()}
    if name not in known:
        return None
    key, needs = known[name]
    return parse(f"{key}.ko", module(key, needs))


def test_dependencies_come_first_and_once() -> None:
    order = [found.name for found in select(WANTED["serial"], find, frozenset({"ext4"}))]
    disks = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "squashfs", "overlay"]
    assert order[:6] == disks
    assert order[6] == "virtio_console"
    assert order.index("virtio_balloon") == order.index("virtio_rng") + 1


def test_each_link_gets_only_what_it_uses() -> None:
    names = {link: {found.name for found in select(WANTED[link], find, frozenset({"ext4"}))} for link in WANTED}
    assert "virtio_console" not in names["vsock"]
    assert "vsock" not in names["serial"]


def test_a_dash_in_a_file_name_is_an_underscore_in_the_kernel() -> None:
    (found,) = select(["virtio_rng"], find, frozenset({"virtio", "virtio_ring"}))
    assert (found.name, found.file) == ("virtio_rng", "virtio_rng.ko")


def test_a_module_that_is_not_there_is_named_with_who_needs_it() -> None:
    with pytest.raises(RuntimeBroken, match="no module virtio, which virtio_blk needs"):
        select(["virtio_blk"], lambda name: find(name) if name != "virtio" else None, frozenset())


def test_modules_in_a_circle_are_refused() -> None:
    circle = {"a": "b", "b": "c", "c": "a"}
    with pytest.raises(RuntimeBroken, match="a > b > c > a"):
        select(["a"], lambda name: parse(f"{name}.ko", module(name, circle[name])), frozenset())


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst"])
def test_packed_modules_are_unpacked(suffix: str) -> None:
    plain = module("overlay", "a,b-c")
    packed = {"": plain, ".xz": lzma.compress(plain), ".zst": zstandard.compress(plain)}[suffix]
    assert parse(f"overlay.ko{suffix}", packed) == Module("overlay", "overlay.ko", plain, ("a", "b_c"))


@pytest.mark.parametrize("suffix", [".xz", ".zst"])
def test_a_packed_bomb_is_refused(suffix: str) -> None:
    bomb = bytes(33 << 20)
    packed = {".xz": lzma.compress(bomb), ".zst": zstandard.compress(bomb)}[suffix]
    with pytest.raises(RuntimeBroken, match="larger than 32 MiB"):
        parse(f"overlay.ko{suffix}", packed)


@pytest.mark.parametrize("name", ["../overlay.ko", "a/b.ko", ".ko", "overlay.so", "over lay.ko", "x" * 200 + ".ko"])
def test_a_name_that_is_no_flat_module_name_is_refused(name: str) -> None:
    with pytest.raises(RuntimeBroken, match="not the name"):
        parse(name, module("overlay"))


def test_a_damaged_module_raises_runtime_broken_wherever_it_is_cut() -> None:
    plain = module("overlay", "virtio")
    for length in range(len(plain)):
        with pytest.raises(RuntimeBroken):
            modinfo(plain[:length], "overlay.ko")
    for name, packed in (("x.ko.xz", lzma.compress(plain)), ("x.ko.zst", zstandard.compress(plain))):
        with pytest.raises(RuntimeBroken):
            parse(name, packed[: len(packed) // 2])


def test_section_headers_that_lead_outside_the_file_are_damage() -> None:
    plain = bytearray(module("overlay"))
    struct.pack_into("<Q", plain, 40, 1 << 62)
    with pytest.raises(RuntimeBroken, match="damaged"):
        modinfo(bytes(plain), "overlay.ko")


def test_builtin_modules_are_read_from_their_list() -> None:
    assert builtin_names("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n\nnonsense\n") == {"ext4", "crc_t10dif"}
