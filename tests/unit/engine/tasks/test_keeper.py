"""The keeper, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pyro_mcp.engine.tasks.keeping import ensure_keeper
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

from .conftest import DEAD, Make

SECONDS = 20.0


@pytest.fixture(autouse=True)
def no_keeper_stays(tasks: Tasks) -> Iterator[None]:
    """With the last task the keeper goes, too."""
    yield
    for record in tasks.rows.all()[0]:
        tasks.remove(record.task_id)
    assert until(lambda: keeper(tasks.context.paths) is None, Deadline.after(SECONDS))


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


def began(paths: Paths) -> int:
    """How many keepers have run."""
    return paths.keeper_log.read_text().count(": began") if paths.keeper_log.exists() else 0


def test_one_keeper_runs_however_many_ask_for_it_at_once(tasks: Tasks, make: Make) -> None:
    make()
    paths = tasks.context.paths
    script = (
        "from pyro_mcp.paths import Paths; from pyro_mcp.engine.tasks.keeping import ensure_keeper;"
        "print(ensure_keeper(Paths.of_user()))"
    )
    asked = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    answers = [process.communicate()[0].strip() for process in asked]
    assert sorted(answers) == ["False"] * 7 + ["True"]
    assert until(lambda: began(paths) == 1, Deadline.after(SECONDS))
    assert keeper(paths) is not None
    assert not ensure_keeper(paths)


def test_a_killed_keeper_is_replaced_by_the_next_who_asks(tasks: Tasks, make: Make) -> None:
    make()
    paths = tasks.context.paths
    assert ensure_keeper(paths)
    first = keeper(paths)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    assert until(lambda: not first.alive, Deadline.after(SECONDS))
    assert ensure_keeper(paths)
    assert keeper(paths) != first


def test_it_goes_when_nothing_is_left(tasks: Tasks, make: Make) -> None:
    record = make()
    assert ensure_keeper(tasks.context.paths)
    assert until(lambda: began(tasks.context.paths) == 1, Deadline.after(SECONDS))
    tasks.remove(record.task_id)
    log = tasks.context.paths.keeper_log
    assert until(lambda: "nothing is left to keep" in log.read_text(), Deadline.after(SECONDS))
    assert keeper(tasks.context.paths) is None


def test_it_goes_when_the_state_is_removed_under_it(tasks: Tasks, make: Make) -> None:
    make()
    paths = tasks.context.paths
    ensure_keeper(paths)
    running = keeper(paths)
    assert running is not None
    assert until(lambda: began(paths) == 1, Deadline.after(SECONDS))
    paths.keeper_lock.unlink()
    assert until(lambda: not running.alive, Deadline.after(SECONDS))


def test_it_ends_tasks_whose_time_is_over_and_those_that_are_idle(tasks: Tasks, make: Make) -> None:
    now = time.time()
    ttl = make(expires_at=now + 3)
    idle = make(idle_seconds=1)
    other = make()
    ensure_keeper(tasks.context.paths)

    def state(task_id: str) -> str:
        return tasks.rows.find(task_id).state

    assert until(lambda: state(idle.task_id) == "expired", Deadline.after(SECONDS))
    assert until(lambda: state(ttl.task_id) == "expired", Deadline.after(SECONDS))
    assert tasks.rows.find(ttl.task_id).ended_at == ttl.expires_at
    assert state(other.task_id) == "started"
    assert keeper(tasks.context.paths) is not None


def test_it_removes_what_a_dead_process_was_making(tasks: Tasks, make: Make) -> None:
    make()
    ensure_keeper(tasks.context.paths)
    dead = make(state="creating", actor=DEAD)

    def gone() -> bool:
        return dead.task_id not in [record.task_id for record in tasks.rows.all()[0]]

    assert until(gone, Deadline.after(SECONDS))


def test_a_damaged_record_does_not_stop_it(tasks: Tasks, make: Make) -> None:
    bad = make()
    with tasks.context.store.database.transaction() as connection:
        connection.execute("UPDATE tasks SET record = '{' WHERE task_id = ?", (bad.task_id,))
    idle = make(idle_seconds=1)
    ensure_keeper(tasks.context.paths)
    assert until(lambda: tasks.rows.find(idle.task_id).state == "expired", Deadline.after(SECONDS))
    tasks.delete(bad.task_id)


def test_its_log_is_bounded(tasks: Tasks, make: Make) -> None:
    paths = tasks.context.paths
    paths.keeper_log.write_text("old line\n" * 20_000)
    make()
    ensure_keeper(paths)
    assert until(lambda: began(paths) == 1, Deadline.after(SECONDS))
    assert paths.keeper_log.stat().st_size < 64 << 10
