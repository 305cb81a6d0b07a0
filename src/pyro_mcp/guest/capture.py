"""Keeping the two ends of a command's output in bounded memory."""

from pyro_mcp.model import OUTPUT_BYTES_MOST

CONTINUATION_MOST = 3  # bytes of one UTF-8 character after its first


class HeadTail:
    """Keeps the first and the last half of *limit* bytes of a stream, and counts all of them.

    Holds at most one and a half times *limit*, and one piece of what is added.
    """

    def __init__(self, limit: int = OUTPUT_BYTES_MOST) -> None:
        self._head_most = limit // 2
        self._tail_most = limit - self._head_most
        self._head = bytearray()
        self._tail = bytearray()
        self._passed = 0
        self.lost = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream; they are copied."""
        view = memoryview(data)
        self._passed += len(view)
        room = self._head_most - len(self._head)
        if room > 0:
            self._head += view[:room]
            view = view[room:]
        self._tail += view[max(0, len(view) - self._tail_most) :]
        if len(self._tail) > 2 * self._tail_most:
            del self._tail[: -self._tail_most]

    def lose(self, count: int) -> None:
        """*count* bytes of the stream never arrived."""
        self.lost += count

    @property
    def total(self) -> int:
        """Bytes of the whole stream, also those that were cut or lost."""
        return self._passed + self.lost

    @property
    def truncated(self) -> bool:
        """Whether some bytes are missing from what is kept."""
        return self.lost > 0 or self._passed > self._head_most + self._tail_most

    def parts(self) -> tuple[bytes, bytes]:
        """The kept bytes: the head and the tail, which follow on each other unless :attr:`truncated`."""
        tail = self._tail[-self._tail_most :] if self._tail_most else b""
        return bytes(self._head), bytes(tail)

    def text(self) -> str:
        """The kept bytes as text, with a line for missing bytes; what is not UTF-8 becomes U+FFFD."""
        head, tail = self.parts()
        if not self.truncated:
            return (head + tail).decode(errors="replace")
        if self._passed > len(head) + len(tail):
            head, tail = _whole_end(head), _whole_start(tail)
            missing = f"... {self.total - len(head) - len(tail)} bytes cut ..."
            return f"{_line(head.decode(errors='replace'))}{missing}\n{tail.decode(errors='replace')}"
        return f"{_line((head + tail).decode(errors='replace'))}... {self.lost} bytes lost ...\n"


class CaptureSinks:
    """Output sinks that keep both streams, each to *limit* bytes."""

    def __init__(self, limit: int = OUTPUT_BYTES_MOST) -> None:
        self.stdout = HeadTail(limit)
        self.stderr = HeadTail(limit)

    def on_stdout(self, data: memoryview) -> None:
        """Keep bytes of standard output."""
        self.stdout.add(data)

    def on_stderr(self, data: memoryview) -> None:
        """Keep bytes of standard error."""
        self.stderr.add(data)

    def on_lost(self, stdout: int, stderr: int) -> None:
        """Count bytes that never arrived."""
        self.stdout.lose(stdout)
        self.stderr.lose(stderr)


def _line(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _whole_end(data: bytes) -> bytes:
    """*data* without a UTF-8 character that its end cuts in two."""
    for back in range(1, min(CONTINUATION_MOST, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 + (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
            return data[:-back] if needed > back else data
    return data


def _whole_start(data: bytes) -> bytes:
    """*data* without the rest of a UTF-8 character that its start cuts in two."""
    skip = 0
    while skip < min(CONTINUATION_MOST, len(data)) and data[skip] & 0xC0 == 0x80:
        skip += 1
    return data[skip:]
