"""Layers as streams: unpacked while they are read, bounded, and compared with both of their digests."""

import contextlib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from pyro_mcp.errors import ImageRefused

BUFFER = 1 << 18
MIB = 1 << 20
MAGIC_GZIP = b"\x1f\x8b"
MAGIC_ZSTD = b"\x28\xb5\x2f\xfd"
# Also zstd: a frame that a decoder passes over; some tools begin with one.
MAGIC_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4"}
ZSTD_WINDOW_MOST = 1 << 27


class Blob(Protocol):
    """A layer as it is stored, compressed or not. *digest* is what it must have."""

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits; empty when nobody states one."""

    def open(self) -> BinaryIO:
        """A stream from its beginning; may be called more than once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may take: bytes once its layers are unpacked, all together, and names."""

    unpacked_bytes: int
    names: int = 2_000_000
    ratio: int = 1500  # gzip cannot do better than about 1030; a tenth of that is rare
    ratio_from: int = 256 * MIB


class Budget:
    """How much of an image's limits is used up."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used = 0

    def take(self, count: int) -> None:
        """Raises ImageRefused when it is too much."""
        self.used += count
        if self.used > self.limits.unpacked_bytes:
            raise ImageRefused(
                f"the image unpacks to more than {self.limits.unpacked_bytes // MIB} MiB",
                remedy="If it is meant to be that large, raise PYRO_IMAGE_MAX_MIB.",
            )


class Measured(io.RawIOBase):
    """A stream that hashes and counts what is read of it."""

    def __init__(self, source: BinaryIO, budget: Budget | None = None, packed: "Measured | None" = None) -> None:
        self.total = 0
        self._source = source
        self._budget = budget
        self._packed = packed
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a memoryview is what BufferedReader gives
        """Read and count."""
        count = self._source.readinto(buffer)  # type: ignore[attr-defined]  # every binary stream of ours has it
        self._hash.update(buffer[:count])
        self.total += count
        if self._budget is not None:
            self._budget.take(count)
            self._check_ratio(self._budget.limits)
        return int(count)

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def _check_ratio(self, limits: Limits) -> None:
        if self._packed is None or self.total < limits.ratio_from:
            return
        if self.total > limits.ratio * max(self._packed.total, 1):
            raise ImageRefused(f"a layer unpacks to more than {limits.ratio} times its size")


@contextlib.contextmanager
def unpacked(blob: Blob, budget: Budget, *, diff_id: str = "", verify: bool) -> "Iterator[io.BufferedReader[Measured]]":
    """The tar stream of a layer, to be read to its end.

    With *verify* the digest of the blob and, unless it is empty, the *diff_id* of the stream are compared at the end.
    Raises ImageRefused for a difference, for what cannot be unpacked, and beyond the *budget*.
    """
    with contextlib.closing(blob.open()) as stored, damage_told():
        raw = Measured(stored)
        packed = io.BufferedReader(raw, BUFFER)
        plain = Measured(_decompressor(packed), budget, raw)
        yield io.BufferedReader(plain, BUFFER)
        if verify:
            while packed.read(BUFFER):  # a decompressor may leave trailing bytes
                pass
            if blob.digest:
                _compare("a layer", blob.digest, raw.digest)
            if diff_id:
                _compare("an unpacked layer", diff_id, plain.digest)


@contextlib.contextmanager
def damage_told() -> Iterator[None]:
    """Translate what decompressors raise."""
    import zstandard

    try:
        yield
    except (zlib.error, gzip.BadGzipFile, EOFError, zstandard.ZstdError) as error:
        raise ImageRefused(f"a layer cannot be unpacked: {error}") from error


def _compare(what: str, wanted: str, found: str) -> None:
    if wanted != found:
        raise ImageRefused(f"{what} differs from its digest: it is {found}, and should be {wanted}")


def _decompressor(packed: "io.BufferedReader[Measured]") -> BinaryIO:
    """By the first bytes: the media type is often wrong."""
    start = packed.peek(8)[:8]
    if start.startswith(MAGIC_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=packed, mode="rb"))
    if start.startswith((MAGIC_ZSTD, *MAGIC_SKIPPABLE)):
        import zstandard

        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MOST)
        return cast("BinaryIO", decoder.stream_reader(packed, read_across_frames=True, closefd=False))
    for magic, name in OTHERS.items():
        if start.startswith(magic):
            raise ImageRefused(f"a layer is compressed with {name}, which images may not use")
    return packed
