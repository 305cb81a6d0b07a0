"""Where a command's standard input comes from."""

import os
from typing import Protocol

READ_MOST = 256 << 10


class StdinSource(Protocol):
    """Bytes for a command.

    It remembers its place, so that an attach goes on where the lost connection stopped.
    """

    @property
    def descriptor(self) -> int | None:
        """What to poll until it is readable; ``None``: there are bytes, or the end, at any time."""

    def read(self, most: int) -> bytes | None:
        """At most *most* bytes; empty at the end; ``None``: nothing now.

        Called when the descriptor is ready.
        """


class DescriptorStdin:
    """Reads a file descriptor of the caller's, which keeps its mode: it is polled, then read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int | None:
        """The descriptor to poll."""
        return self._descriptor

    def read(self, most: int) -> bytes | None:
        """As :class:`StdinSource`. A descriptor that cannot be read is at its end."""
        try:
            return os.read(self._descriptor, min(most, READ_MOST))
        except BlockingIOError:
            return None
        except OSError:  # a terminal that hung up, a descriptor that was closed: nothing more will come
            return b""


class BytesStdin:
    """Reads bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    @property
    def descriptor(self) -> int | None:
        """Nothing to poll: bytes are always there."""
        return None

    def read(self, most: int) -> bytes | None:
        """As :class:`StdinSource`."""
        taken = self._rest[: min(most, READ_MOST)]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)
