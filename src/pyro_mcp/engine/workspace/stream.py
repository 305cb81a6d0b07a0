"""The bytes of an archive for ``tarfile``: forward only, unpacked on the way, and no more than an archive needs."""

import gzip
import io
import os
import zlib
from typing import BinaryIO

from pyro_mcp.errors import ArchiveRefused

BLOCK = 512
HEADERS_MOST = 1 << 20  # a member's headers: names, PAX records, maps of sparse files
SKIP = 1 << 18
TAIL_MOST = 64 << 20  # padding after the end of an archive
GZIP_MAGIC = b"\x1f\x8b"


class ArchiveStream(io.RawIOBase):
    """What ``tarfile`` reads from. It never goes back, and refuses headers without end.

    ``tarfile`` takes a header's size on trust and ends silently at a damaged one; so headers are counted here, and
    :meth:`finish` looks whether the archive came to its proper end.
    """

    def __init__(self, path: os.PathLike[str]) -> None:
        super().__init__()
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115, PTH123 - closed by close()
        status = os.fstat(self._file.fileno())
        self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        packed = self._file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        self._file.seek(0)
        self._bytes: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=self._file) if packed else self._file
        self._position = 0
        self._headers = 0
        self._in_data = False
        self._last = b""

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def member(self, *, data: bool) -> None:
        """From here on a member's contents are read, or the headers of the next one."""
        self._in_data = data
        self._headers = 0

    def read(self, size: int = -1) -> bytes:
        """The next *size* bytes, fewer at the end of the file."""
        if size < 0:
            raise ArchiveRefused("the archive cannot be understood")
        if not self._in_data:
            self._headers += size
            if self._headers > HEADERS_MOST:
                raise ArchiveRefused(f"a member of the archive has more than {HEADERS_MOST} bytes of headers")
        parts = []
        while size > 0 and (part := self._take(size)):
            parts.append(part)
            size -= len(part)
        self._last = b"".join(parts)
        return self._last

    def tell(self) -> int:
        """Where the next byte stands, unpacked."""
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Go forward."""
        if whence != os.SEEK_SET or position < self._position:
            raise ArchiveRefused("a member of the archive lies inside another")
        while self._position < position:
            if not self._take(min(SKIP, position - self._position)):
                raise ArchiveRefused("the archive is cut short")
        return self._position

    def finish(self) -> None:
        """Raise ArchiveRefused unless the archive ended as archives do, and all that is packed is whole."""
        if self._last != bytes(BLOCK):
            raise ArchiveRefused("the archive is cut short, or damaged")
        end = self._position
        while self._take(SKIP):
            if self._position - end > TAIL_MOST:
                raise ArchiveRefused("the archive goes on after its end")

    def _take(self, size: int) -> bytes:
        try:
            data = self._bytes.read(size)
        except EOFError as error:
            raise ArchiveRefused("the archive is cut short") from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise ArchiveRefused(f"the archive is damaged: {error}") from error
        self._position += len(data)
        return data
