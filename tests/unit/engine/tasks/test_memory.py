"""When idle tasks are asked for memory."""

import os
import time

import pytest

from pyro_mcp.engine.tasks.activity import in_use, last_used
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.memory import QUIET_SECONDS, Reclaims
from pyro_mcp.engine.tasks.records import TaskRecord

from .conftest import Make


@pytest.fixture
def record(tasks: Tasks, make: Make) -> TaskRecord:
    made = make(execution_mode="guest_vsock")
    with in_use(tasks.paths(made.task_id)):
        return made


def used_at(tasks: Tasks, record: TaskRecord, at: float) -> None:
    os.utime(tasks.paths(record.task_id).used, (at, at))


def test_a_task_is_due_a_while_after_the_last_call(tasks: Tasks, record: TaskRecord) -> None:
    used = last_used(tasks.paths(record.task_id))
    assert used is not None
    assert Reclaims(tasks).due(record) == used + QUIET_SECONDS


def test_it_is_asked_once_and_again_after_the_next_call(tasks: Tasks, record: TaskRecord) -> None:
    reclaims = Reclaims(tasks)
    used_at(tasks, record, time.time() - QUIET_SECONDS - 1)
    assert reclaims.reclaim([record]) == []  # it has no VM: nothing comes back
    assert reclaims.due(record) is None
    used_at(tasks, record, time.time())
    assert reclaims.due(record) is not None
    assert reclaims.reclaim([record]) == []  # not yet
    assert reclaims.due(record) is not None


def test_what_cannot_be_asked_is_never_due(tasks: Tasks, make: Make) -> None:
    for changes in ({}, {"state": "stopped"}, {"execution_mode": "guest_vsock", "state": "expired"}):
        assert Reclaims(tasks).due(make(**changes)) is None
