"""Idle tasks give memory back: a while after the last call on one, its guest is asked for what it has free.

Most guests need not be asked, they report free pages by themselves (``Capabilities.reclaims``).
"""

import time

from pyro_mcp.engine import choice
from pyro_mcp.engine.tasks.activity import last_used
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.records import TaskRecord
from pyro_mcp.errors import PyroError
from pyro_mcp.guest.client import Agent
from pyro_mcp.host.deadline import Deadline

QUIET_SECONDS = 10.0  # without a call on the task
ASK_SECONDS = 20.0
KEPT_MIB = 16  # of what is free stays with the guest, so that the next command finds some
WORTH_MIB = 16


class Reclaims:
    """What the keeper has asked for. It is forgotten with the keeper, which costs one more question."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._asked: dict[str, float] = {}  # by task: the last call on it, when it was asked

    def due(self, record: TaskRecord) -> float | None:
        """When the guest of *record* is to be asked, Unix seconds, if nobody uses it until then; ``None``: never."""
        if record.state != "started" or record.execution_mode != "guest_vsock":
            return None
        used = last_used(self._tasks.paths(record.task_id))
        return None if used is None or self._asked.get(record.task_id) == used else used + QUIET_SECONDS

    def reclaim(self, records: list[TaskRecord]) -> list[str]:
        """Ask all that are due, each once after its last call; a line for each."""
        self._asked = {task: used for task, used in self._asked.items() if task in {one.task_id for one in records}}
        lines = []
        for record in records:
            due = self.due(record)
            if due is None or due > time.time():
                continue
            self._asked[record.task_id] = due - QUIET_SECONDS
            try:
                returned = self._ask(record)
            except PyroError as error:
                lines.append(f"task {record.task_id}: no memory came back: {error.cause}")
            else:
                lines += [f"task {record.task_id}: gave {returned} MiB back"] if returned else []
        return lines

    def _ask(self, record: TaskRecord) -> int:
        machine = self._tasks.machine(record.task_id)
        if machine is None or machine.running is None:
            return 0
        paths = self._tasks.context.paths
        driver = choice.by_name(paths, machine.driver)
        if not driver.capabilities.reclaims:
            return 0
        deadline = Deadline.after(ASK_SECONDS)
        free = (Agent(self._tasks.machines.channels(machine)).usage(deadline).memory_free_kib >> 10) - KEPT_MIB
        if free < WORTH_MIB:
            return 0
        return driver.reclaim(paths.machine(record.task_id), machine.running, free, deadline)
