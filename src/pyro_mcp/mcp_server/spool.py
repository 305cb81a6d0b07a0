"""What a command wrote, kept while its result may be asked for: the first bytes in a file, the last in memory."""

import tempfile
import threading
from pathlib import Path
from typing import IO

HEAD_MOST = 8 << 20
TAIL_MOST = 64 << 10


class Spool:
    """One stream. The file has no name: it ends with this process, however that ends.

    Calls may come from any thread.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._memory = bytearray()
        self._tail = bytearray()
        self._head = 0
        self._total = 0
        self._lock = threading.Lock()

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        with self._lock:
            self._total += len(data)
            room = HEAD_MOST - self._head
            if room > 0:
                self._keep(data[:room])
            self._tail += data[-TAIL_MOST:]
            if len(self._tail) > 2 * TAIL_MOST:
                del self._tail[:-TAIL_MOST]

    @property
    def total(self) -> int:
        """Bytes of the whole stream so far."""
        return self._total

    @property
    def held(self) -> int:
        """Bytes that are kept of it."""
        return self._head + len(self._tail)

    def read(self, cursor: int, count: int) -> tuple[int, bytes]:
        """Up to *count* bytes from *cursor*, a number of bytes; negative: from so many before the end.

        Also where they begin, which is later than *cursor* when what was there is not kept.
        """
        with self._lock:
            start = max(0, self._total + cursor) if cursor < 0 else min(cursor, self._total)
            if start < self._head:
                return start, self._from_head(start, min(count, self._head - start))
            tail_start = self._total - len(self._tail)
            start = max(start, tail_start)
            return start, bytes(self._tail[start - tail_start :][:count])

    def close(self) -> None:
        """Let go of the file; what was kept is gone."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._head = 0

    def _keep(self, data: bytes) -> None:
        if self._directory is None:
            self._memory += data
        else:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed by close()
            self._file.seek(self._head)
            self._file.write(data)
        self._head += len(data)

    def _from_head(self, start: int, count: int) -> bytes:
        if self._file is None:
            return bytes(self._memory[start : start + count])
        self._file.seek(start)
        return self._file.read(count)
