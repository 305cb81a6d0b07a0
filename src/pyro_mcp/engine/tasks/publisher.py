"""The publisher: one small process per published port of a task. It dies with the task's machine.

It begins when the pyro that started it has put it on record, and takes a line to the agent only while it has clients.
The task counts as used as long as it has some.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from pyro_mcp.drivers.launcher import watched
from pyro_mcp.engine import choice
from pyro_mcp.engine.channels import Channels
from pyro_mcp.engine.publish.door import Door
from pyro_mcp.engine.publish.forwarder import Forwarder
from pyro_mcp.engine.publish.ports import Listener, Port
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.tasks.activity import in_use
from pyro_mcp.errors import MachineDied
from pyro_mcp.paths import Paths

READY = b"r"
GO = b"g"


def main(words: Sequence[str]) -> int:
    """Serve a port; *words*: the descriptors of the listener and of who starts it, the port, the task, the roots."""
    listening, starting = (_taken(word) for word in words[:2])
    port, task_id = Port.parse(words[2]), words[3]
    state, cache, environments = (Path(word) for word in words[4:7])
    paths = Paths(state=state, cache=cache, environments=environments)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(stop, 1))
    os.chdir("/")
    os.umask(0o077)
    machine = Store(paths.database).get(task_id)
    with starting:
        starting.sendall(READY)
        if starting.recv(1) != GO:  # whoever started us is gone, and we are not on record
            return 1
    with listening:
        _serve(paths, machine, Listener(port, listening), stop)
    return 0


def _serve(paths: Paths, machine: MachineRecord, listener: Listener, stop: int) -> None:
    """Until the machine has ended."""
    if machine.running is None:
        return
    machine_id = machine.machine_id
    lines = choice.by_name(paths, machine.driver).lines(paths.machine(machine_id), machine.running)
    with contextlib.suppress(MachineDied), watched(machine.running.launcher) as ended:
        forwarder = Forwarder(
            Door([listener]), Channels(lines), ended=ended, stop=stop, using=lambda: in_use(paths.task(machine_id))
        )
        forwarder.serve()


def _taken(word: str) -> socket.socket:
    """The socket of an inherited descriptor, which is ours alone from now on."""
    taken = socket.socket(fileno=int(word))
    taken.set_inheritable(False)
    return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
