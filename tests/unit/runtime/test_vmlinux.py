"""The kernel comes out of a bzImage whole, or not at all."""

import gzip
import io
import struct

import lz4.block  # type: ignore[import-untyped]
import pytest
from tests.unit.runtime.conftest import COMPRESSIONS, KERNEL, bzimage, elf, lz4_legacy

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.runtime.vmlinux import extract


def extracted(image: bytes, limit: int = 256 << 20) -> bytes:
    output = io.BytesIO()
    size = extract(image, output, limit=limit)
    assert size == len(output.getvalue())
    return output.getvalue()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_kernel_comes_out_of_every_compression(compression: str) -> None:
    assert extracted(bzimage(COMPRESSIONS[compression](KERNEL))) == KERNEL


def test_a_setup_size_of_zero_means_four_sectors() -> None:
    assert extracted(bzimage(COMPRESSIONS["lz4"](KERNEL), sectors=0)) == KERNEL


def test_two_lz4_frames_in_a_row_are_one_content() -> None:
    half = 8 << 20
    payload = lz4_legacy(KERNEL[:half]) + lz4_legacy(KERNEL[half:]) + struct.pack("<I", len(KERNEL))
    assert extracted(bzimage(payload)) == KERNEL


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_an_image_cut_short_is_broken(compression: str, kept: float) -> None:
    image = bzimage(COMPRESSIONS[compression](KERNEL))[:-64]
    with pytest.raises(RuntimeBroken):
        extracted(image[: int(len(image) * kept)])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("cut", [4, 5, 100])
def test_a_content_cut_short_is_broken(compression: str, cut: int) -> None:
    payload = COMPRESSIONS[compression](KERNEL)
    with pytest.raises(RuntimeBroken):
        extracted(bzimage(payload[:-cut]))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_decompression_bomb_stops_at_the_limit(compression: str) -> None:
    bomb = bzimage(COMPRESSIONS[compression](bytes(12 << 20)))
    output = io.BytesIO()
    with pytest.raises(RuntimeBroken, match="more than 1 MiB"):
        extract(bomb, output, limit=1 << 20)
    assert len(output.getvalue()) <= 1 << 20


def test_a_block_that_claims_more_than_a_block_holds_is_broken() -> None:
    block = lz4.block.compress(bytes(32 << 20), store_size=False)
    payload = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", 32 << 20)
    with pytest.raises(RuntimeBroken, match="damaged"):
        extracted(bzimage(payload))


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (b"", "no Linux setup header"),
        (bytes(4096), "no Linux setup header"),
        (bzimage(b"BZh91AY&SY" + bytes(64)), "does not know"),
        (bzimage(b"x" * 64, length=0), "cut short"),
        (bzimage(b"x" * 64, length=0xFFFFFFFF), "cut short"),
        (bzimage(gzip.compress(b"#!/bin/sh\n" + bytes(100))), "not a 64-bit ELF"),
        (bzimage(gzip.compress(elf(b"arm", machine=183))), "not an x86-64"),
        (bzimage(gzip.compress(KERNEL[:-1])), "cut short"),
        (bzimage(gzip.compress(KERNEL[:100])), "program headers"),
    ],
    ids=["empty", "zeros", "bzip2", "no payload", "huge payload", "script", "arm64", "short elf", "headless elf"],
)
def test_what_is_no_kernel_is_named(image: bytes, cause: str) -> None:
    with pytest.raises(RuntimeBroken, match=cause):
        extracted(image)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_flipped_bytes_never_raise_anything_else(compression: str) -> None:
    payload = COMPRESSIONS[compression](elf(b"small" * 1000))
    for position in range(0, len(payload), max(1, len(payload) // 64)):
        damaged = bytearray(payload)
        damaged[position] ^= 0x55
        try:
            extracted(bzimage(bytes(damaged)), limit=1 << 20)
        except RuntimeBroken:
            continue
