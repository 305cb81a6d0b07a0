"""Steps that the tests of tasks share."""

import contextlib
import os
from collections.abc import Iterator

from pyro_mcp.engine.store import Store
from pyro_mcp.engine.tasks.results import TaskLogEntry
from pyro_mcp.errors import UnknownTask
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

SETTLE = 15.0


@contextlib.contextmanager
def tasks_end_with_the_test(paths: Paths) -> Iterator[None]:
    """Delete what is left; then the keeper has nothing to keep, and goes."""
    try:
        yield
    finally:
        pyro = Pyro()
        for record in pyro.list_tasks()["tasks"]:
            with contextlib.suppress(UnknownTask):  # the keeper removes what a killed creator left
                pyro.delete_task(record["task_id"])
        assert until(lambda: keeper(paths) is None, Deadline.after(SETTLE))
        assert not list(paths.tasks.glob("*"))


def keeper(paths: Paths) -> ProcessId | None:
    """The process that holds the keeper's lock."""
    if not paths.keeper_lock.exists():
        return None
    lock = try_lock(paths.keeper_lock)
    if lock is not None:
        os.close(lock)
        return None
    text = paths.keeper_lock.read_text().strip()
    return ProcessId.of(int(text)) if text else None


def vmm(paths: Paths, task_id: str) -> ProcessId:
    """The VMM of a task."""
    running = Store(paths.database).get(task_id).running
    assert running is not None
    return running.vmm


def history(pyro: Pyro, task_id: str) -> list[TaskLogEntry]:
    """A task's entries, proved to be without a hole."""
    entries = pyro.logs_task(task_id)["entries"]
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
    return entries


def complete(pyro: Pyro, task_id: str) -> bool:
    """Whether every entry has its end."""
    return all(entry["state"] != "running" for entry in history(pyro, task_id))
