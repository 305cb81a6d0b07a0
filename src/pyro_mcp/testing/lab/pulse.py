"""Whether a lab still answers: one whose kernel stands still ends nothing by itself, no test and no time-out in it."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.drivers import launcher
from pyro_mcp.errors import MachineDied, MachineFault, OperationFailed, PyroError
from pyro_mcp.guest.client import Agent
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.proc import tail
from pyro_mcp.testing.lab.machine import STOP_SECONDS, Running

EVERY_SECONDS = 10.0
ANSWER_SECONDS = 10.0
PATIENCE_SECONDS = 180.0  # without any answer; hosts may be very busy
CONSOLE_LINES = 20


class _Pulse:
    def __init__(self, running: Running, patience: float) -> None:
        self._running = running
        self._patience = patience
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._feel, name="lab-pulse", daemon=True)
        self.stopped = False

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop asking. An answer that is still awaited is not waited for: nobody who ends a lab has time for that."""
        self._over.set()

    def _feel(self) -> None:
        agent = Agent(self._running.machine.channels)
        limit = Deadline.after(self._patience)
        while not self._over.wait(min(EVERY_SECONDS, limit.remaining)):
            try:
                agent.info(Deadline.after(ANSWER_SECONDS).sooner(max(limit.remaining, 1.0)))
            except MachineDied:
                return
            except PyroError:
                if limit.passed:
                    break
            else:
                limit = Deadline.after(self._patience)
        else:
            return
        self.stopped = True
        with contextlib.suppress(MachineFault):  # what waits for it ends now
            launcher.stop(self._running.vmm, Deadline.after(STOP_SECONDS))


@contextlib.contextmanager
def pulse(running: Running, *, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Ask the lab all the time whether it is there. After *patience* seconds without an answer it is ended.

    Raises OperationFailed then, with what its kernel said.
    """
    feeling = _Pulse(running, patience)
    feeling.begin()
    try:
        yield
    except MachineDied as error:
        if not feeling.stopped:
            raise
        raise OperationFailed(
            f"the lab stands still: it has not answered for {patience:g} seconds, and was ended",
            remedy="The last test that was begun is named above. Look at console.log beside the results.",
            details=_said(running.files.console),
        ) from error
    finally:
        feeling.end()


def _said(console: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return tail(console.read_bytes(), CONSOLE_LINES)
    return []
