"""Acting on a running command from elsewhere: other threads, signal handlers."""

import contextlib
import os
import threading
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

from pyro_mcp.errors import Interrupted, InvalidRequest

SIGNAL_MOST = 64


class SendSignal(NamedTuple):
    """Send this signal to the job's process group."""

    number: int


class Resize(NamedTuple):
    """The terminal has this size now."""

    rows: int
    columns: int


class Cancel(NamedTuple):
    """Stop the job."""


Order = SendSignal | Resize | Cancel


class Control:
    """A handle on one command; a context manager.

    Every method may be called from any thread and from a signal handler.

    Orders given before the command runs are kept for it; orders given after its end do nothing.
    """

    def __init__(self) -> None:
        self._orders: deque[Order] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Reentrant, so that a signal handler may interrupt its own thread in here.
        self._lock = threading.RLock()
        self._closed = False
        self._left = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def signal(self, number: int) -> None:
        """Send signal *number* (1 to 64) to the job's process group."""
        if not 1 <= number <= SIGNAL_MOST:
            raise InvalidRequest(f"{number} is not a signal number")
        self._order(SendSignal(int(number)))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the job's terminal its size in characters."""
        self._order(Resize(_size(rows), _size(columns)))

    def cancel(self) -> None:
        """Stop the job: SIGTERM, SIGKILL after a grace or a second call; ``execute`` raises Interrupted."""
        self._order(Cancel())

    def leave(self) -> None:
        """Follow the job no further, and let it be: what attaches to it or waits for it raises Interrupted."""
        self._left = True
        self._wake()

    def check_left(self) -> None:
        """Raise Interrupted when nobody wants to follow the job any more."""
        if self._left:
            raise Interrupted("the job was left; it goes on")

    def close(self) -> None:
        """Let go of the descriptor. May be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._wakeup)

    def fileno(self) -> int:
        """Readable while there are orders."""
        return self._wakeup

    def take(self) -> list[Order]:
        """The orders since the last call, oldest first."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wakeup)
        taken: list[Order] = []
        while self._orders:
            taken.append(self._orders.popleft())
        return taken

    def _order(self, order: Order) -> None:
        self._orders.append(order)
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wakeup, 1)


def _size(characters: int) -> int:
    return max(1, min(int(characters), 0xFFFF))
