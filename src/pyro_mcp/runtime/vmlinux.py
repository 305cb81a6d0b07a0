"""The uncompressed ELF kernel inside a bzImage.

Linux, Documentation/arch/x86/boot.rst: the setup header has the magic "HdrS" at 0x202; the protected-mode
code starts at ``(setup_sects + 1) * 512`` (setup_sects at 0x1f1; 0 means 4); payload_offset (0x248) counts
from there, payload_length is at 0x24c (both since protocol 2.08). The payload is a compressed ELF; the build
appends its uncompressed length as a u32.
"""

import io
import lzma
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import lz4.block  # type: ignore[import-untyped]
import zstandard

from pyro_mcp.errors import RuntimeBroken

IMAGE_MOST = 64 << 20
KERNEL_MOST = 256 << 20
CHUNK = 1 << 20
SECTOR = 512
HEADER_MAGIC = b"HdrS"
PAYLOAD_PROTOCOL = 0x0208
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20  # every block of a legacy frame but the last (lz4_Frame_format.md, "Legacy frame")
ZSTD_WINDOW_MOST = 1 << 27  # what the kernel's own decompressor takes
LZMA_MEMORY_MOST = 256 << 20
ELF_X86_64 = 62
ELF_EXECUTABLE = 2
PT_LOAD = 1


def extract(image: bytes, output: BinaryIO, *, limit: int = KERNEL_MOST) -> int:
    """Write the ELF kernel in the bzImage *image* to *output* (empty, readable); returns its size in bytes.

    Raises RuntimeBroken when the image is damaged, of an unknown compression, larger than *limit*, or no
    x86-64 kernel.
    """
    payload = _payload(image)
    size = 0
    for part in _decompressed(payload):
        size += len(part)
        if size > limit:
            raise RuntimeBroken(f"the kernel image holds more than {limit >> 20} MiB")
        output.write(part)
    if struct.unpack_from("<I", payload, len(payload) - 4) != (size,):
        raise RuntimeBroken("the kernel image is damaged: its content has another length than recorded")
    check_elf(output, size)
    return size


def check_elf(stream: BinaryIO, size: int) -> None:
    """Raise RuntimeBroken unless *stream* holds a whole x86-64 ELF executable of *size* bytes."""
    stream.seek(0)
    header = stream.read(64)
    if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
        raise RuntimeBroken("the kernel is not a 64-bit ELF file")
    kind, machine = struct.unpack_from("<HH", header, 16)
    if (kind, machine) != (ELF_EXECUTABLE, ELF_X86_64):
        raise RuntimeBroken("the kernel is not an x86-64 executable")
    (table,) = struct.unpack_from("<Q", header, 32)
    entry_size, count = struct.unpack_from("<HH", header, 54)
    if entry_size != 56 or not 0 < count <= 64 or table + entry_size * count > size:
        raise RuntimeBroken("the kernel's program headers are damaged")
    stream.seek(table)
    entries = stream.read(entry_size * count)
    loaded = 0
    for number in range(count):
        segment, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", entries, number * entry_size)
        if segment == PT_LOAD:
            loaded += 1
            if offset + length > size:
                raise RuntimeBroken("the kernel is cut short")
    if not loaded:
        raise RuntimeBroken("the kernel has nothing to load")


def _payload(image: bytes) -> memoryview:
    if len(image) < 0x250 or image[0x202:0x206] != HEADER_MAGIC:
        raise RuntimeBroken("the kernel image has no Linux setup header")
    if struct.unpack_from("<H", image, 0x206)[0] < PAYLOAD_PROTOCOL:
        raise RuntimeBroken("the kernel image is older than boot protocol 2.08")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * SECTOR + offset
    if not 8 <= length <= IMAGE_MOST or start + length > len(image):
        raise RuntimeBroken("the kernel image is cut short")
    return memoryview(image)[start : start + length]


def _decompressed(payload: memoryview) -> Iterator[bytes]:
    """The payload's content in parts of at most LZ4_BLOCK bytes, so that the reader can stop at its limit."""
    head = bytes(payload[:6])
    try:
        if head.startswith(LZ4_LEGACY):
            yield from _lz4_legacy(payload)
        elif head == b"\xfd7zXZ\0":
            yield from _xz(payload)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            yield from _zstd(payload)
        elif head.startswith(b"\x1f\x8b"):
            yield from _gzip(payload)
        else:
            raise RuntimeBroken(
                f"the kernel image is compressed in a way pyro does not know (magic {head[:4].hex(' ')})"
            )
    except (lz4.block.LZ4BlockError, lzma.LZMAError, zstandard.ZstdError, zlib.error) as error:
        raise RuntimeBroken(f"the kernel image is damaged: {error}") from error


def _lz4_legacy(payload: memoryview) -> Iterator[bytes]:
    """Blocks, each behind its compressed length as u32; the last u32 of all is the content's length."""
    position, end = len(LZ4_LEGACY), len(payload) - 4
    while position + 4 <= end:
        (length,) = struct.unpack_from("<I", payload, position)
        another_frame = payload[position : position + 4] == LZ4_LEGACY
        position += 4
        if another_frame:
            continue
        if length > end - position:
            raise RuntimeBroken("the kernel image is damaged: a block is longer than the image")
        yield lz4.block.decompress(payload[position : position + length], uncompressed_size=LZ4_BLOCK)
        position += length


def _xz(payload: memoryview) -> Iterator[bytes]:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY_MOST)
    for piece in _pieces(payload):
        data = bytes(piece)
        while not decompressor.eof:
            part = decompressor.decompress(data, CHUNK)
            data = b""
            if part:
                yield part
            elif decompressor.needs_input:
                break
        if decompressor.eof:
            return
    raise RuntimeBroken("the kernel image is damaged: its content ends too soon")


def _gzip(payload: memoryview) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(wbits=31)
    for piece in _pieces(payload):
        data = bytes(piece)
        while not decompressor.eof:
            part = decompressor.decompress(data, CHUNK)
            data = decompressor.unconsumed_tail
            if part:
                yield part
            elif not data:
                break
        if decompressor.eof:
            return
    raise RuntimeBroken("the kernel image is damaged: its content ends too soon")


def _zstd(payload: memoryview) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MOST)
    # The reader takes an early end of its input for the end of the frame; the length tells (see extract).
    with frame.stream_reader(io.BytesIO(payload[:-4]), read_across_frames=False) as reader:
        while part := reader.read(CHUNK):
            yield part


def _pieces(payload: memoryview) -> Iterable[memoryview]:
    return (payload[start : start + CHUNK] for start in range(0, len(payload), CHUNK))
