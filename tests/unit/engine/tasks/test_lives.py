"""When tasks end, and what is left of them."""

import os
import time

import pytest

from pyro_mcp.engine.outcome import CommandIO
from pyro_mcp.engine.tasks.activity import in_use
from pyro_mcp.engine.tasks.jobs import Jobs
from pyro_mcp.engine.tasks.lifecycle import KEPT_SECONDS, Tasks
from pyro_mcp.engine.tasks.records import TaskRecord
from pyro_mcp.engine.tasks.service import TaskService
from pyro_mcp.engine.tasks.tidy import next_due, tidy
from pyro_mcp.errors import TaskExpired, UnknownMachine, UnknownTask, WrongState
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec

from .conftest import DEAD, Make, command


def unused_for(tasks: Tasks, record: TaskRecord, seconds: float) -> None:
    used = tasks.paths(record.task_id).used
    used.touch()
    os.utime(used, (time.time() - seconds,) * 2)


def test_a_task_past_its_time_has_expired_and_keeps_its_history(tasks: Tasks, make: Make) -> None:
    record = make(expires_at=time.time() + 0.2)
    tasks.rows.begin(record.task_id, command(client=DEAD))
    while time.time() < record.expires_at:
        os.sched_yield()
    found = tasks.current(record.task_id)
    assert (found.state, found.ended_reason, found.ended_at) == ("expired", "ttl", record.expires_at)
    with pytest.raises(TaskExpired, match=r"expired at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"):
        found.require_started()
    with pytest.raises(UnknownMachine):
        tasks.context.store.get(record.task_id)
    Jobs(tasks).settle(found)
    entry = tasks.rows.entries(record.task_id)[0]
    assert entry.state == "lost"
    assert "expired at" in entry.reason


def test_an_expired_task_is_forgotten_after_an_hour_and_not_before(tasks: Tasks, make: Make) -> None:
    now = time.time()
    young = make(state="expired", ended_at=now - KEPT_SECONDS + 60, ended_reason="ttl")
    old = make(state="expired", ended_at=now - KEPT_SECONDS - 1, ended_reason="ttl")
    tidy(tasks)
    assert [record.task_id for record in tasks.rows.all()[0]] == [young.task_id]
    assert not tasks.paths(old.task_id).directory.exists()


def test_a_task_nobody_uses_expires_after_its_idle_time(tasks: Tasks, make: Make) -> None:
    record = make(idle_seconds=10)
    unused_for(tasks, record, 9)
    tidy(tasks, idle=True)
    assert tasks.current(record.task_id).state == "started"
    unused_for(tasks, record, 11)
    tidy(tasks, idle=True)
    found = tasks.current(record.task_id)
    assert (found.state, found.ended_reason) == ("expired", "idle")
    assert "it was idle for 10 s" in str(found.cause)


def test_a_call_that_goes_on_keeps_a_task_from_being_idle(tasks: Tasks, make: Make) -> None:
    record = make(idle_seconds=10)
    with in_use(tasks.paths(record.task_id)):
        unused_for(tasks, record, 100)
        tidy(tasks, idle=True)
        assert tasks.current(record.task_id).state == "started"
    tidy(tasks, idle=True)  # the call has just ended
    assert tasks.current(record.task_id).state == "started"


def test_a_running_command_keeps_a_task_from_being_idle(tasks: Tasks, make: Make) -> None:
    record = make(idle_seconds=10)
    entry = tasks.rows.begin(record.task_id, command())
    unused_for(tasks, record, 100)
    tidy(tasks, idle=True)
    assert tasks.current(record.task_id).state == "started"
    tasks.rows.finish(record.task_id, entry.lost("test"))
    unused_for(tasks, record, 100)
    tidy(tasks, idle=True)
    assert tasks.current(record.task_id).state == "expired"


def test_without_an_idle_time_a_task_lives_to_its_end(tasks: Tasks, make: Make) -> None:
    record = make()
    unused_for(tasks, record, 100_000)
    tidy(tasks, idle=True)
    assert tasks.current(record.task_id).state == "started"


def test_the_next_thing_due_is_the_earliest_of_all(tasks: Tasks, make: Make) -> None:
    assert next_due(tasks, []) is None
    late = make()
    early = make(expires_at=time.time() + 100)
    assert next_due(tasks, [late, early]) == early.expires_at
    idle = make(idle_seconds=5)
    tasks.paths(idle.task_id).used.touch()
    due = next_due(tasks, [late, early, idle])
    assert due is not None
    assert time.time() + 3 < due < time.time() + 6


@pytest.mark.parametrize("state", ["creating", "deleting"])
def test_what_a_dead_process_was_making_or_deleting_goes(tasks: Tasks, make: Make, state: str) -> None:
    dead, alive = make(state=state, actor=DEAD), make(state=state)
    tidy(tasks)
    assert [record.task_id for record in tasks.rows.all()[0]] == [alive.task_id]
    assert not tasks.paths(dead.task_id).directory.exists()
    with pytest.raises(UnknownMachine):
        tasks.context.store.get(dead.task_id)


def test_a_directory_without_a_record_goes(tasks: Tasks, make: Make) -> None:
    record = make()
    orphan = tasks.paths("0123456789ab").commands
    orphan.mkdir(parents=True)
    tidy(tasks)
    assert not orphan.parent.exists()
    assert tasks.paths(record.task_id).directory.exists()


def test_a_task_whose_machine_was_deleted_is_stopped_and_says_so(tasks: Tasks, make: Make) -> None:
    record = make()
    tasks.machines.delete(record.task_id)
    found = tasks.current(record.task_id)
    assert (found.state, found.ended_reason) == ("stopped", "machine_deleted")
    with pytest.raises(WrongState, match="its machine was deleted"):
        found.require_started()


def test_a_deleted_task_is_unknown_and_leaves_nothing(tasks: Tasks, make: Make) -> None:
    record = make(name="demo")
    tasks.rows.begin(record.task_id, command())
    assert tasks.delete("demo") == record.task_id
    assert not tasks.paths(record.task_id).directory.exists()
    assert tasks.rows.entries(record.task_id) == []
    assert tasks.context.store.all() == ([], [])
    with pytest.raises(UnknownTask):
        tasks.delete("demo")


def test_only_extend_gives_a_task_another_end(tasks: Tasks, make: Make) -> None:
    """Neither running commands, following them, nor looking at the task does; nor at its machine."""
    record, service = make(name="demo", idle_seconds=60), TaskService(tasks.context)

    def ends() -> tuple[float, float]:
        return tasks.rows.find(record.task_id).expires_at, tasks.context.store.get(record.task_id).expires_at

    before = ends()
    assert before == (record.expires_at, record.expires_at)
    with Control() as control:
        assert service.execute("demo", CommandSpec("echo out"), CommandIO(control))["exit_code"] == 0
        job = service.logs("demo", None)["entries"][0]["job_id"]
        assert service.wait("demo", job, Deadline.after(5), control)[1]["state"] == "done"
        assert service.attach("demo", job, CommandIO(control))["exit_code"] == 0
    assert service.status("demo")["expires_at"] == record.expires_at
    assert service.all()["tasks"][0]["expires_at"] == record.expires_at
    tidy(tasks, idle=True)
    assert ends() == before
    extended = service.extend("demo", 1200, None)["expires_at"]
    assert ends() == (extended, extended)
    assert extended > record.expires_at
