"""What is due for tasks: ends of lives, changes that dead processes left, histories that were kept long enough.

The keeper does it in time; every pyro command does it, too, so that nothing depends on the keeper.
"""

import contextlib
import os
import time
from collections.abc import Iterator

from pyro_mcp.engine.tasks.jobs import Jobs
from pyro_mcp.engine.tasks.lifecycle import KEPT_SECONDS, Tasks
from pyro_mcp.engine.tasks.publications import forget_dead
from pyro_mcp.engine.tasks.records import TaskRecord
from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import remove_tree
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import MACHINE_ID

# How often a task that is past its idle time, but has a command that runs, is looked at.
BUSY_SECONDS = 1.0


def tidy(tasks: Tasks, *, idle: bool = False) -> list[str]:
    """Do what is due; a line for each thing that was done, or could not be.

    *idle*: also end idle tasks, which needs a word with their guests. A task that cannot be handled harms no other.
    """
    lines: list[str] = []
    records, damaged = tasks.rows.all()
    for record in records:
        try:
            lines += _one(tasks, record, idle=idle)
        except PyroError as error:
            lines.append(f"task {record.task_id}: {error.cause}")
    lines += _directories(tasks, {record.task_id for record in records} | set(damaged))
    return lines


def _one(tasks: Tasks, record: TaskRecord, *, idle: bool) -> Iterator[str]:
    task_id = record.task_id
    if record.abandoned:
        tasks.remove(task_id)
        yield f"task {task_id}: removed, the process that was {record.state} it is dead"
    elif record.state == "expired":
        if _forgotten(record):
            tasks.remove(task_id)
            yield f"task {task_id}: removed with its history"
    elif record.state in ("started", "stopped"):
        now = tasks.look(record)
        yield from forget_dead(tasks, now)
        if now.state != record.state:
            yield f"task {task_id}: {now.state}: {now.cause}"
            if idle:
                Jobs(tasks).settle(now)
        elif idle and tasks.expire_if_idle(now, lambda: _busy(tasks, now)):
            yield f"task {task_id}: expired, idle for {now.idle_seconds} s"


def next_due(tasks: Tasks, records: list[TaskRecord]) -> float | None:
    """When something is due for one of *records*, Unix seconds; ``None``: there are none."""
    return min((at for record in records for at in _dues(tasks, record)), default=None)


def watched(tasks: Tasks, records: list[TaskRecord]) -> set[ProcessId]:
    """The processes whose end is news for *records*: VMs, publishers, and pyros that are making or deleting a task."""
    found = set()
    for record in records:
        if record.state in ("creating", "deleting"):
            found.add(record.actor)
        elif record.state == "started":
            machine = tasks.machine(record.task_id)
            if machine is not None and machine.running is not None:
                found.add(machine.running.vmm)
            found |= {one.publisher for one in record.publications}
    return found


def _dues(tasks: Tasks, record: TaskRecord) -> Iterator[float]:
    if record.state == "expired":
        yield (record.ended_at or record.expires_at) + KEPT_SECONDS
        return
    yield record.expires_at
    idle_at = tasks.idle_at(record)
    if idle_at is not None:
        yield max(idle_at, time.time() + BUSY_SECONDS) if idle_at <= time.time() else idle_at


def _forgotten(record: TaskRecord) -> bool:
    return time.time() >= (record.ended_at or record.expires_at) + KEPT_SECONDS


def _busy(tasks: Tasks, record: TaskRecord) -> bool:
    """Whether a command runs in the task; entries whose client is gone are completed first if they have ended."""
    if not tasks.rows.running(record.task_id):
        return False
    try:
        Jobs(tasks).settle(record)
    except PyroError:
        return True  # the guest does not answer: whatever runs there, it is not for us to say that nothing does
    return bool(tasks.rows.running(record.task_id))


def _directories(tasks: Tasks, known: set[str]) -> Iterator[str]:
    """Directories without a record: the record is written first and removed last, so nobody needs them."""
    try:
        present = [entry.name for entry in os.scandir(tasks.context.paths.tasks) if MACHINE_ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return
    orphans = set(present) - known
    if not orphans:
        return
    records, damaged = tasks.rows.all()
    for name in sorted(orphans - {record.task_id for record in records} - set(damaged)):
        with contextlib.suppress(PyroError):
            remove_tree(tasks.paths(name).directory)
            yield f"task {name}: removed a directory without a record"
