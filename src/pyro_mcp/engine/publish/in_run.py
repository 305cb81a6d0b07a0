"""The published ports of a one-shot run: they are there before its machine is made, and go with this process."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.drivers.launcher import watched
from pyro_mcp.engine.publish.door import Door
from pyro_mcp.engine.publish.forwarder import LAST_SECONDS, Forwarder
from pyro_mcp.engine.publish.ports import Listener, Port
from pyro_mcp.errors import MachineDied
from pyro_mcp.guest.client import ChannelOpener

JOIN_SECONDS = LAST_SECONDS + 1.0


@contextlib.contextmanager
def listening(ports: Sequence[Port]) -> Iterator[list[Listener]]:
    """Listeners for *ports*; clients that come too early wait. Raises PortUnavailable."""
    with contextlib.ExitStack() as stack:
        listeners = []
        for port in ports:
            listener = Listener.open(port)
            stack.callback(listener.close)
            listeners.append(listener)
        yield listeners


@contextlib.contextmanager
def forwarded(listeners: Sequence[Listener], channels: ChannelOpener, running: RunningVmm) -> Iterator[None]:
    """Serve *listeners* while the block runs, and after it until what is under way has arrived.

    A guest that keeps its agent busy cannot keep the caller: the thread then ends with the machine.
    """
    if not listeners:
        yield
        return
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def work() -> None:
        try:
            with contextlib.suppress(MachineDied), watched(running.launcher) as ended:
                Forwarder(Door(listeners), channels, ended=ended, stop=reader).serve()
        finally:
            os.close(reader)

    thread = threading.Thread(target=work, name="pyro-publish", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(writer)  # the reader is readable from then on
        thread.join(JOIN_SECONDS)
