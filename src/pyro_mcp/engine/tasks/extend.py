"""Giving a task more time, or less. The VM's launcher holds the alarm: it is told first, the records follow.

A pyro that dies in between leaves a record with the old time, and the keeper goes by that: nothing lives longer than
its record says.
"""

import time
from dataclasses import replace

from pyro_mcp.drivers.launcher import instruct
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.records import TaskRecord
from pyro_mcp.errors import InvalidRequest, MachineDied
from pyro_mcp.model import IDLE_SECONDS_LIMITS, TTL_SECONDS_LIMITS, check_between


def extend(tasks: Tasks, wanted: str, ttl_seconds: int | None, idle_seconds: int | None) -> TaskRecord:
    """Let a started task live *ttl_seconds* from now, and change its idle time (0: none).

    Raises InvalidRequest for times outside the limits, TaskExpired or WrongState for a task that has ended.
    """
    if ttl_seconds is None and idle_seconds is None:
        raise InvalidRequest("nothing to change", remedy="Give --ttl-seconds, --idle-seconds or both.")
    if ttl_seconds is not None:
        check_between("ttl_seconds", ttl_seconds, TTL_SECONDS_LIMITS)
    if idle_seconds:
        check_between("idle_seconds", idle_seconds, IDLE_SECONDS_LIMITS)
    with tasks.using(wanted) as found, tasks.changing(found.task_id):
        tasks.look(tasks.rows.find(found.task_id)).require_started()
        changes: dict[str, object] = {}
        if ttl_seconds is not None:
            expires_at = time.time() + ttl_seconds
            _move_machine(tasks, found.task_id, expires_at)
            changes |= {"ttl_seconds": ttl_seconds, "expires_at": expires_at}
        if idle_seconds is not None:
            changes["idle_seconds"] = idle_seconds or None
        changed = tasks.rows.change(
            found.task_id,
            lambda record: replace(record, **changes),  # type: ignore[arg-type]  # names are those of the record
            allowed=("started",),
        )
    changed.require_started()
    return changed


def _move_machine(tasks: Tasks, task_id: str, expires_at: float) -> None:
    machine = tasks.machine(task_id)
    if machine is None:
        raise MachineDied(f"the machine of task {task_id} is gone")
    if machine.running is not None:
        request = tasks.context.paths.machine(task_id).new_deadline
        instruct(machine.running.launcher, request, f"{int(expires_at * 1000)}\n")
    _record(tasks, machine, expires_at)


def _record(tasks: Tasks, machine: MachineRecord, expires_at: float) -> None:
    tasks.context.store.update(
        replace(machine, ttl_seconds=round(expires_at - machine.created_at), expires_at=expires_at)
    )
