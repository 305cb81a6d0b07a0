"""Commands and their entries, without any guest: in tasks that run on the host."""

import pytest

from pyro_mcp.engine.outcome import CommandIO
from pyro_mcp.engine.tasks.jobs import Jobs
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.logs import follow_logs, read_logs
from pyro_mcp.errors import InvalidRequest, UnknownJob, WrongState
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec, Terminal

from .conftest import DEAD, Make, command


@pytest.fixture
def jobs(tasks: Tasks) -> Jobs:
    return Jobs(tasks)


def test_a_command_gets_an_entry_with_its_end_and_its_output(tasks: Tasks, jobs: Jobs, make: Make) -> None:
    record = make()
    with Control() as control:
        io = CommandIO(control, stdin=b"in\n")
        done = jobs.execute(record.task_id, CommandSpec("cat; echo err >&2; exit 3"), io)
    assert (done.entry.state, done.entry.exit_code, done.entry.sequence) == ("done", 3, 1)
    entry = read_logs(tasks, jobs, record.task_id, None)["entries"][0]
    assert (entry["stdout"], entry["stderr"], entry["cwd"]) == ("in\n", "err\n", "/workspace")
    assert (entry["stdout_bytes"], entry["stderr_bytes"]) == (3, 4)
    assert entry["recorded_at"] is not None


def test_a_callback_that_fails_ends_the_command_and_completes_the_entry(tasks: Tasks, jobs: Jobs, make: Make) -> None:
    record = make()

    def fail(_data: bytes) -> None:
        raise LookupError("the caller's own")

    with Control() as control, pytest.raises(LookupError):
        jobs.execute(record.task_id, CommandSpec("echo x; sleep 100"), CommandIO(control, on_stdout=fail))
    assert tasks.rows.entries(record.task_id)[0].state == "lost"


def test_what_a_dead_client_left_is_called_lost_with_the_reason(tasks: Tasks, jobs: Jobs, make: Make) -> None:
    record = make()
    orphan = tasks.rows.begin(record.task_id, command(client=DEAD))
    mine = tasks.rows.begin(record.task_id, command())
    jobs.settle(record)
    entries = tasks.rows.entries(record.task_id)
    assert [entry.state for entry in entries] == ["lost", "running"]
    assert "pyro ended" in entries[0].reason
    assert jobs.wait(record.task_id, orphan.job, Deadline.after(5)).entry.state == "lost"
    assert jobs.wait(record.task_id, mine.job, Deadline.after(0.1)).entry.state == "running"


def test_following_ends_with_the_task(tasks: Tasks, jobs: Jobs, make: Make) -> None:
    record = make()
    with Control() as control:
        for number in range(3):
            jobs.execute(record.task_id, CommandSpec(f"echo {number}"), CommandIO(control))
    tasks.expire(record.task_id, at=1.0)
    pieces = list(follow_logs(tasks, jobs, record.task_id, lambda: False))
    assert [piece.stdout for piece in pieces] == [b"0\n", b"1\n", b"2\n"]
    assert all(piece.first and piece.last for piece in pieces)
    last = follow_logs(tasks, jobs, record.task_id, lambda: False, last=1)
    assert [piece.entry.sequence for piece in last] == [3]


def test_what_cannot_be_is_refused(jobs: Jobs, make: Make) -> None:
    task_id = make().task_id
    with pytest.raises(WrongState):
        jobs.start(task_id, CommandSpec("true"))
    with pytest.raises(InvalidRequest):
        jobs.start(task_id, CommandSpec("cat", stdin=True))
    with pytest.raises(InvalidRequest):
        jobs.start(task_id, CommandSpec("cat", terminal=Terminal(24, 80)))
    with pytest.raises(InvalidRequest):
        jobs.signal(task_id, "0" * 16, 0, "group")
    with pytest.raises(UnknownJob):
        jobs.signal(task_id, "0" * 16, 15, "group")
    with pytest.raises(InvalidRequest):
        jobs.wait(task_id, "../../etc", Deadline.after(1))
