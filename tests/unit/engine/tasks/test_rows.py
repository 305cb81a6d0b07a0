"""Tasks and histories in the database."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.engine.database import MIGRATIONS, SCHEMA, Database
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.errors import InvalidRequest, StorageFault, TaskExpired, UnknownJob, UnknownTask, WrongState

from .conftest import DEAD, Make, command, machine, task

THREADS = 16
PROCESSES = 8
OPENS = """
import pathlib, sys
from pyro_mcp.engine.database import Database
print("ready", flush=True)
sys.stdin.read()
Database(pathlib.Path(sys.argv[1]))
"""
EACH = 8


def damage(tasks: Tasks, table: str, text: str) -> None:
    connection = sqlite3.connect(tasks.context.paths.database)
    connection.execute(f"UPDATE {table} SET record = ?", (text,))  # noqa: S608 - the test's own word
    connection.commit()
    connection.close()


def test_a_file_of_the_first_schema_gets_the_new_tables_and_keeps_its_records(tmp_path: Path) -> None:
    path = tmp_path / "pyro.db"
    old = machine(task())
    with sqlite3.connect(path) as connection:
        connection.execute(MIGRATIONS[0][0])
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO machines VALUES (?, ?)", (old.machine_id, json.dumps(old.as_json())))
    connection.close()
    assert Store(path).get(old.machine_id) == old
    with Database(path).transaction() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert connection.execute("SELECT count(*) FROM commands").fetchone() == (0,)


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Each is ready, says so, and opens the file when the others may: when its input ends."""
    path = tmp_path / "pyro.db"
    argv = [sys.executable, "-c", OPENS, str(path)]
    begin, begin_end = os.pipe()
    opening = [subprocess.Popen(argv, stdin=begin, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    os.close(begin)
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    os.close(begin_end)
    for process in opening:
        process.communicate(timeout=60)
    assert [process.returncode for process in opening] == [0] * PROCESSES
    with Database(path).transaction() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)


def test_a_task_comes_back_as_it_went_in(tasks: Tasks) -> None:
    record = task(name="demo", labels={"a": "b"}, idle_seconds=5)
    tasks.rows.insert(record)
    assert tasks.rows.find(record.task_id) == record
    assert tasks.rows.find("demo") == record
    assert tasks.rows.all() == ([record], [])


def test_a_name_is_taken_by_one_living_task_and_free_again_when_that_has_expired(tasks: Tasks, make: Make) -> None:
    first = make(name="demo")
    with pytest.raises(InvalidRequest, match=first.task_id):
        tasks.rows.insert(task(name="demo"))
    tasks.expire(first.task_id, at=time.time())
    second = make(name="demo")
    assert tasks.rows.find("demo").task_id == second.task_id
    assert tasks.rows.find(first.task_id).state == "expired"


def test_sixteen_threads_get_numbers_without_a_hole(tasks: Tasks, make: Make) -> None:
    record = make()
    seen: list[CommandRecord] = []

    def execute() -> None:
        for _ in range(EACH):
            entry = tasks.rows.begin(record.task_id, command())
            seen.append(tasks.rows.finish(record.task_id, replace(entry, state="done", exit_code=0)))

    threads = [threading.Thread(target=execute) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = tasks.rows.entries(record.task_id)
    assert [entry.sequence for entry in entries] == list(range(1, THREADS * EACH + 1))
    assert {entry.state for entry in entries} == {"done"}
    assert sorted(entry.job for entry in entries) == sorted(entry.job for entry in seen)
    assert tasks.rows.count(record.task_id) == THREADS * EACH


def test_the_history_can_be_read_in_parts(tasks: Tasks, make: Make) -> None:
    record = make()
    for _ in range(5):
        tasks.rows.begin(record.task_id, command())
    assert [entry.sequence for entry in tasks.rows.entries(record.task_id, after=3)] == [4, 5]
    assert [entry.sequence for entry in tasks.rows.entries(record.task_id, last=2)] == [4, 5]


def test_a_complete_entry_never_changes(tasks: Tasks, make: Make) -> None:
    record = make()
    entry = tasks.rows.begin(record.task_id, command())
    done = tasks.rows.finish(record.task_id, replace(entry, state="done", exit_code=3))
    assert tasks.rows.finish(record.task_id, entry.lost("too late")) == done
    assert tasks.rows.entry(record.task_id, entry.job).exit_code == 3
    assert tasks.rows.claim(record.task_id, entry.sequence) is None


def test_only_an_entry_without_a_living_client_can_be_claimed_and_only_once(tasks: Tasks, make: Make) -> None:
    record = make()
    attended = tasks.rows.begin(record.task_id, command())
    orphan = tasks.rows.begin(record.task_id, command(client=DEAD))
    assert tasks.rows.claim(record.task_id, attended.sequence) is None
    assert tasks.rows.claim(record.task_id, orphan.sequence) is not None
    assert tasks.rows.claim(record.task_id, orphan.sequence) is None
    tasks.rows.release(record.task_id, orphan.sequence)
    assert tasks.rows.claim(record.task_id, orphan.sequence) is not None


@pytest.mark.parametrize(
    ("state", "error"), [("expired", TaskExpired), ("stopped", WrongState), ("creating", WrongState)]
)
def test_no_command_begins_in_a_task_that_cannot_run_one(
    tasks: Tasks, make: Make, state: str, error: type[Exception]
) -> None:
    record = make(state=state, cause="expired at noon")
    with pytest.raises(error):
        tasks.rows.begin(record.task_id, command())
    assert tasks.rows.entries(record.task_id) == []
    assert tasks.rows.count(record.task_id) == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"task_id": "../../etc"}', "null", '"x"'])
def test_a_damaged_task_names_itself_harms_no_other_and_can_be_deleted(tasks: Tasks, make: Make, text: str) -> None:
    bad = make(name="bad")
    damage(tasks, "tasks", text)
    good = make()
    assert tasks.rows.all() == ([good], [bad.task_id])
    with pytest.raises(StorageFault, match=bad.task_id):
        tasks.current(bad.task_id)
    tasks.delete(bad.task_id)
    assert tasks.rows.all() == ([good], [])
    assert not tasks.paths(bad.task_id).directory.exists()


PROCESS: dict[str, object] = {"pid": 10, "start_ticks": 20}
PORT: dict[str, object] = {"host_port": 8080, "guest_port": 80, "address": "127.0.0.1"}
WRONG: list[Any] = [
    *({one.name: {"wrong": ["wrong"]}} for one in fields(TaskRecord)),
    *({"expires_at": value} for value in ("x", None, True, -1, float("nan"), float("inf"), 10**400)),
    *({"ended_at": value} for value in ("x", True, float("nan"))),
    *({"idle_seconds": value} for value in ("x", True, 1.5)),
    *({"actor": PROCESS | {"pid": pid}} for pid in (0, -1, 2**31, "x", "10", None, True)),
    {"labels": {"a": 1}},
    {"seed": {}},
    {"execution_mode": "guest_telepathy"},
    {"ended_reason": "boredom"},
    {"publications": [{"port": PORT, "publisher": PROCESS | {"pid": -1}, "since": 1.0}]},
    {"publications": [{"port": PORT, "publisher": PROCESS, "since": "x"}]},
    {"publications": [{"port": PORT | {"host_port": "x"}, "publisher": PROCESS, "since": 1.0}]},
    {"publications": [{"port": {"host": 1}, "publisher": PROCESS, "since": 1.0}]},
]
WRONG_ENTRY: list[Any] = [
    *({one.name: {"wrong": ["wrong"]}} for one in fields(CommandRecord)),
    *({"started_at": value} for value in ("x", None, float("nan"))),
    *({"client": PROCESS | {"pid": pid}} for pid in (0, -1, "x")),
    {"exit_code": "0"},
    {"causes": [1]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong!r:.60}")
def test_a_value_of_the_wrong_kind_makes_a_task_damaged_and_nothing_else(
    tasks: Tasks, make: Make, wrong: dict[str, object]
) -> None:
    bad = make(name="bad")
    damage(tasks, "tasks", json.dumps(bad.as_json() | wrong))
    good = make()
    assert tasks.rows.all() == ([good], [bad.task_id])
    with pytest.raises(StorageFault, match=bad.task_id):
        tasks.current(bad.task_id)
    tasks.delete(bad.task_id)
    assert tasks.rows.all() == ([good], [])


@pytest.mark.parametrize("wrong", WRONG_ENTRY, ids=lambda wrong: f"{wrong!r:.60}")
def test_a_value_of_the_wrong_kind_makes_an_entry_lost(tasks: Tasks, make: Make, wrong: dict[str, object]) -> None:
    record = make()
    good = tasks.rows.begin(record.task_id, command())
    damage(tasks, "commands", json.dumps(good.as_json() | wrong))
    entry = tasks.rows.entries(record.task_id)[0]
    assert (entry.sequence, entry.state, entry.reason) == (1, "lost", "its record is damaged")


def test_a_damaged_entry_keeps_its_place_and_says_so(tasks: Tasks, make: Make) -> None:
    record = make()
    tasks.rows.begin(record.task_id, command())
    damage(tasks, "commands", "{")
    entry = tasks.rows.entries(record.task_id)[0]
    assert (entry.sequence, entry.state, entry.reason) == (1, "lost", "its record is damaged")
    assert tasks.rows.begin(record.task_id, command()).sequence == 2


def test_what_is_not_there_is_named(tasks: Tasks, make: Make) -> None:
    record = make()
    with pytest.raises(UnknownJob, match="0123456789abcdef"):
        tasks.rows.entry(record.task_id, "0123456789abcdef")
    for wanted in ("ffffffffffff", "no such", "../../etc", ""):
        with pytest.raises(UnknownTask):
            tasks.rows.find(wanted)


def test_an_unknown_task_is_answered_with_the_nearest_name_or_id(tasks: Tasks, make: Make) -> None:
    record = make(task_id="0123456789ab", name="food")
    for wanted, near in (
        ("foo", "food"),
        ("fod", "food"),
        ("01234567", "0123456789ab"),
        ("0123456789ad", record.task_id),
    ):
        with pytest.raises(UnknownTask, match=f"there is no task '?{wanted}'?; did you mean '{near}'"):
            tasks.rows.find(wanted)
    for wanted in ("something-else", "fedcba987654", "012", "x" * 10_000_000):
        with pytest.raises(UnknownTask) as unknown:
            tasks.rows.find(wanted)
        assert "did you mean" not in unknown.value.cause


def test_an_unknown_job_is_answered_with_the_nearest(tasks: Tasks, make: Make) -> None:
    record = make()
    entry = tasks.rows.begin(record.task_id, command())
    with pytest.raises(UnknownJob, match=f"did you mean '{entry.job}'"):
        tasks.rows.entry(record.task_id, entry.job[:8])
