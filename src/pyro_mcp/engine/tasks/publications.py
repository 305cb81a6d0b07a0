"""Publishing ports of tasks: each has a process of its own, on record before it serves, gone with the machine."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pyro_mcp.engine import background
from pyro_mcp.engine.publish.ports import Listener, Port
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.publisher import GO, READY
from pyro_mcp.engine.tasks.records import Publication, TaskRecord, end_publishers
from pyro_mcp.errors import HostFault, InvalidRequest
from pyro_mcp.host.processes import ProcessId

MODULE = "pyro_mcp.engine.tasks.publisher"
PUBLICATIONS_MOST = 8  # each may take a line to the agent, and half of them are for commands
START_SECONDS = 30.0


def publish(tasks: Tasks, wanted: str, port: Port) -> tuple[TaskRecord, Publication]:
    """Let *port* of this host lead to the task; the host's port is then as it really is.

    Raises PortUnavailable before anything is started, InvalidRequest for a task without a guest or with too many.
    """
    with tasks.using(wanted) as found, tasks.changing(found.task_id):
        record = tasks.look(tasks.rows.find(found.task_id))
        record.require_started()
        if record.execution_mode == "host_compat":
            raise InvalidRequest(
                "publishing needs a guest; this task has none", remedy="Its programs listen on this host themselves."
            )
        if len(record.published) >= PUBLICATIONS_MOST:
            raise InvalidRequest(
                f"task {record.task_id} has {PUBLICATIONS_MOST} published ports, which is all it may have",
                remedy=f"Take one back: pyro task unpublish {record.task_id} PORT",
            )
        listener = Listener.open(port)
        with contextlib.closing(listener):
            return _start(tasks, record.task_id, listener)


def _start(tasks: Tasks, task_id: str, listener: Listener) -> tuple[TaskRecord, Publication]:
    """Start the publisher; it serves once it is on record, and ends by itself when we do not get so far."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            descriptors = [listener.socket.fileno(), theirs.fileno()]
            words = [*map(str, descriptors), listener.port.text, task_id]
            pid = background.spawn(MODULE, words, tasks.context.paths, pass_fds=descriptors)
        publisher = ProcessId.of(pid)
        ours.settimeout(START_SECONDS)
        try:
            ready = ours.recv(1) == READY
        except OSError:
            ready = False
        if publisher is None or not ready:
            raise HostFault(f"the publisher of {listener.port.place} did not start")
        publication = Publication(listener.port, publisher, time.time())
        record = tasks.rows.change(
            task_id,
            lambda found: replace(found, publications=(*found.published, publication)),
            allowed=("started",),
        )
        record.require_started()
        ours.sendall(GO)
    return record, publication


def unpublish(tasks: Tasks, wanted: str, places: Iterable[str]) -> tuple[TaskRecord, list[Publication]]:
    """Take ports back, each named by its host port or its ``ADDR:HOSTPORT``; none named: all. Those that were taken.

    What is under way arrives first, within two seconds. Raises InvalidRequest for a port that is not published.
    """
    with tasks.using(wanted) as found, tasks.changing(found.task_id):
        record = tasks.rows.find(found.task_id)
        named = set(places)
        known = {name for one in record.published for name in _names(one.port)}
        if named - known:
            published = ", ".join(one.port.place for one in record.published) or "none"
            raise InvalidRequest(
                f"{min(named - known)!r:.80} is not published by task {record.task_id}",
                remedy=f"Published are: {published}.",
            )
        taken = [one for one in record.published if not named or named & _names(one.port)]
        end_publishers(taken)
        record = tasks.rows.change(record.task_id, _without(taken), allowed=("started", "stopped"))
    return record, taken


def forget_dead(tasks: Tasks, record: TaskRecord) -> Iterator[str]:
    """Take publications off the record whose process is dead; a line for each."""
    dead = [one for one in record.publications if not one.publisher.alive]
    if dead:
        tasks.rows.change(record.task_id, _without(dead), allowed=("started", "stopped", "expired"))
    for one in dead:
        yield f"task {record.task_id}: the publisher of {one.port.place} is gone"


def _without(gone: list[Publication]) -> Callable[[TaskRecord], TaskRecord]:
    return lambda found: replace(found, publications=tuple(one for one in found.publications if one not in gone))


def _names(port: Port) -> set[str]:
    return {str(port.host_port), port.place}
