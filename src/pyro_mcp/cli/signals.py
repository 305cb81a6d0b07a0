"""Signals to pyro, passed on to the command in the guest."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from pyro_mcp.cli.terminal import current_size
from pyro_mcp.errors import Interrupted
from pyro_mcp.guest.control import Control
from pyro_mcp.model import Terminal

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Terminated(Interrupted):
    """pyro was told by a signal to end; the exit code says which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # the class's constant, here by instance
        """128 and the signal's number, as a shell reports it."""
        return 128 + self.number


class SignalForwarder:
    """Hears the user's signals, and what stage the run is in."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.received: list[int] = []
        self._running = False

    def started(self) -> None:
        """The command is in the guest's hands: signals are for it from now on."""
        self._running = True

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Pass a signal on, or stop.

        While the command runs, the first SIGINT or SIGQUIT goes to it, so that it may end in its own way; a second one,
        SIGTERM and SIGHUP end it. Before it runs, each of them stops pyro. While pyro cleans up they change
        nothing: that is short.
        """
        self.received.append(number)
        if self._running:
            if len(self.received) == 1 and number in (signal.SIGINT, signal.SIGQUIT):
                self.control.signal(number)
            else:
                self.control.cancel()
        elif len(self.received) == 1:
            raise Terminated(number)

    def resized(self, _number: int, _frame: FrameType | None) -> None:
        """The user's terminal has another size."""
        size = current_size(sys.stdin.fileno())
        self.control.resize(size.rows, size.columns)


@contextlib.contextmanager
def forwarded_signals(terminal: Terminal | None) -> Iterator[SignalForwarder]:
    """Take the user's signals for a run; the handlers before are put back on every way out."""
    with Control() as control:
        forwarder = SignalForwarder(control)
        before = {number: signal.signal(number, forwarder.handle) for number in FORWARDED}
        if terminal is not None:
            before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, forwarder.resized)
        try:
            yield forwarder
        except Interrupted as error:
            if forwarder.received and not isinstance(error, Terminated):
                raise Terminated(forwarder.received[0]) from error
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
