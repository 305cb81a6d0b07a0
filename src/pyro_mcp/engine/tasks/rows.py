"""Tasks and their histories in the database. Every call is one transaction, from any thread and any process."""

import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace

from pyro_mcp.engine.database import Database
from pyro_mcp.engine.tasks.records import CommandRecord, State, TaskRecord
from pyro_mcp.errors import InvalidRequest, StorageFault, UnknownJob, UnknownTask
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import MACHINE_ID, NAME

BROKEN = (ValueError, KeyError, TypeError, AttributeError)
# Of what no task is called: longer than this it resembles no name, and this much of an id's beginning says which.
HINTED_MOST = 100
BEGUN_LEAST = 4
KNOWN_TASKS = "SELECT name, task_id FROM tasks ORDER BY rowid DESC"
ENTRY = "SELECT sequence, job, record FROM commands WHERE task_id = ?"


class TaskRows:
    """The tables ``tasks`` and ``commands``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Tasks

    def insert(self, record: TaskRecord) -> None:
        """Add a new task; raises InvalidRequest when another task that has not ended has its name."""
        with self._database.transaction() as connection:
            if record.name is not None:
                for other in self._named(connection, record.name):
                    if other.state != "expired" and not other.over:
                        raise InvalidRequest(
                            f"there is a task named {record.name} already ({other.task_id})",
                            remedy=f"Choose another name, or delete it: pyro task delete {record.name}",
                        )
            connection.execute(
                "INSERT INTO tasks (task_id, name, record) VALUES (?, ?, ?)",
                (record.task_id, record.name, json.dumps(record.as_json())),
            )

    def find(self, wanted: str) -> TaskRecord:
        """The task with that id or name; raises UnknownTask, or StorageFault when its record is damaged."""
        if not isinstance(wanted, str):
            raise InvalidRequest(f"{wanted!r:.80} is not the id or the name of a task")
        with self._database.transaction() as connection:
            if MACHINE_ID.fullmatch(wanted):
                return self._read(connection, wanted)
            named = self._named(connection, wanted) if NAME.fullmatch(wanted) else []
            if not named:
                raise UnknownTask(f"there is no task {wanted!r:.80}{_nearest(wanted, connection.execute(KNOWN_TASKS))}")
            return named[0]

    def change(
        self, task_id: str, change: Callable[[TaskRecord], TaskRecord], *, allowed: tuple[State, ...]
    ) -> TaskRecord:
        """Replace the record by what *change* makes of it, unless its state is not *allowed*; the record after it."""
        with self._database.transaction() as connection:
            record = self._read(connection, task_id)
            if record.state not in allowed:
                return record
            changed = change(record)
            connection.execute(
                "UPDATE tasks SET record = ? WHERE task_id = ?", (json.dumps(changed.as_json()), task_id)
            )
            return changed

    def remove(self, task_id: str) -> None:
        """Remove a task with its history; one that is gone already is fine."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM commands WHERE task_id = ?", (task_id,))
            connection.execute("DELETE FROM tasks WHERE task_id = ?", (task_id,))

    def all(self) -> tuple[list[TaskRecord], list[str]]:
        """All tasks, oldest first, and the ids of those whose record is damaged: they harm nobody else."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT task_id, record FROM tasks ORDER BY rowid").fetchall()
        records, damaged = [], []
        for task_id, text in rows:
            try:
                records.append(_task(task_id, text))
            except BROKEN:
                damaged.append(str(task_id))
        return records, damaged

    # Histories

    def begin(self, task_id: str, entry: CommandRecord) -> CommandRecord:
        """Give *entry* the next number and put it on record. Raises what ``require_started`` does."""
        with self._database.transaction() as connection:
            self._read(connection, task_id).require_started()
            row = connection.execute("SELECT sequence FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
            numbered = replace(entry, sequence=int(row[0]) + 1)
            connection.execute("UPDATE tasks SET sequence = ? WHERE task_id = ?", (numbered.sequence, task_id))
            connection.execute(
                "INSERT INTO commands VALUES (?, ?, ?, ?, ?)",
                (task_id, numbered.sequence, numbered.job, numbered.state, json.dumps(numbered.as_json())),
            )
            return numbered

    def finish(self, task_id: str, entry: CommandRecord) -> CommandRecord:
        """Complete an entry that is still running; the entry as it stands then. What is complete never changes."""
        with self._database.transaction() as connection:
            stored = self._entry(connection, task_id, "sequence", entry.sequence)
            if stored.state != "running":
                return stored
            self._write(connection, task_id, entry)
            return entry

    def claim(self, task_id: str, sequence: int) -> CommandRecord | None:
        """Make this process the one that completes an unattended entry; ``None`` when it is not to be had."""
        with self._database.transaction() as connection:
            entry = self._entry(connection, task_id, "sequence", sequence)
            if not entry.unattended:
                return None
            mine = replace(entry, client=ProcessId.current())
            self._write(connection, task_id, mine)
            return mine

    def release(self, task_id: str, sequence: int) -> None:
        """Let others complete an entry that this process does not attend to any more."""
        with self._database.transaction() as connection:
            entry = self._entry(connection, task_id, "sequence", sequence)
            if entry.state == "running" and entry.client == ProcessId.current():
                self._write(connection, task_id, replace(entry, client=None))

    def entry(self, task_id: str, job: str) -> CommandRecord:
        """The entry of a job; raises UnknownJob."""
        with self._database.transaction() as connection:
            return self._entry(connection, task_id, "job", job)

    def entries(self, task_id: str, *, after: int = 0, last: int | None = None) -> list[CommandRecord]:
        """The history behind number *after*, oldest first; only the *last* of it."""
        most = -1 if last is None else last
        with self._database.transaction() as connection:
            rows = connection.execute(
                f"{ENTRY} AND sequence > ? ORDER BY sequence DESC LIMIT ?", (task_id, after, most)
            ).fetchall()
        return [_command(*row) for row in reversed(rows)]

    def running(self, task_id: str) -> list[CommandRecord]:
        """The entries that are not complete."""
        with self._database.transaction() as connection:
            rows = connection.execute(f"{ENTRY} AND state = 'running' ORDER BY sequence", (task_id,)).fetchall()
        return [_command(*row) for row in rows]

    def count(self, task_id: str) -> int:
        """How many commands the task has had."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT sequence FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        return int(row[0]) if row else 0

    def _read(self, connection: sqlite3.Connection, task_id: str) -> TaskRecord:
        row = connection.execute("SELECT record FROM tasks WHERE task_id = ?", (task_id,)).fetchone()
        if row is None:
            raise UnknownTask(f"there is no task {task_id}{_nearest(task_id, connection.execute(KNOWN_TASKS))}")
        try:
            return _task(task_id, row[0])
        except BROKEN as error:
            raise StorageFault(
                f"the record of task {task_id} is damaged",
                remedy=f"It harms no other task. Delete it: pyro task delete {task_id}",
            ) from error

    def _named(self, connection: sqlite3.Connection, name: str) -> list[TaskRecord]:
        """The tasks of that name: those that have not ended first, then the newest."""
        rows = connection.execute(
            "SELECT task_id, record FROM tasks WHERE name = ? ORDER BY rowid DESC", (name,)
        ).fetchall()
        found = []
        for task_id, text in rows:
            try:
                found.append(_task(task_id, text))
            except BROKEN:
                continue
        return sorted(found, key=lambda record: record.state == "expired")

    def _entry(self, connection: sqlite3.Connection, task_id: str, column: str, value: int | str) -> CommandRecord:
        row = connection.execute(f"{ENTRY} AND {column} = ?", (task_id, value)).fetchone()
        if row is None:
            self._read(connection, task_id)
            known = connection.execute("SELECT job FROM commands WHERE task_id = ?", (task_id,))
            raise UnknownJob(f"task {task_id} has no job {value}{_nearest(str(value), known)}")
        return _command(*row)

    def _write(self, connection: sqlite3.Connection, task_id: str, entry: CommandRecord) -> None:
        connection.execute(
            "UPDATE commands SET state = ?, record = ? WHERE task_id = ? AND sequence = ?",
            (entry.state, json.dumps(entry.as_json()), task_id, entry.sequence),
        )


def _task(task_id: str, text: str) -> TaskRecord:
    record = TaskRecord.from_json(json.loads(text))
    if record.task_id != task_id:
        raise ValueError("the record of another task")
    return record


def _command(sequence: int, job: str, text: str) -> CommandRecord:
    """A stored entry; one that is damaged keeps its place and says so."""
    try:
        entry = CommandRecord.from_json(json.loads(text))
        if (entry.sequence, entry.job) != (sequence, job):
            raise ValueError("the record of another command")
    except BROKEN:
        damaged = CommandRecord(str(job), "?", "?", "pending", 0.0, None, sequence=int(sequence))
        return damaged.lost("its record is damaged")
    return entry


def _nearest(wanted: str, rows: Iterable[tuple[str | None, ...]]) -> str:
    """The name or id of *rows* that was probably meant, if one is near; the beginning of an id is near it."""
    from difflib import get_close_matches

    if len(wanted) > HINTED_MOST:
        return ""
    known = [text for row in rows for text in row if text]
    begun = [text for text in known if text.startswith(wanted)] if len(wanted) >= BEGUN_LEAST else []
    near = begun or get_close_matches(wanted, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
