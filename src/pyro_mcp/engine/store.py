"""The records of all machines of a user: one SQLite file (WAL), short transactions, one row per machine."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.engine.records import MachineRecord, State
from pyro_mcp.errors import Busy, NoSpace, StorageFault, UnknownMachine, WrongState
from pyro_mcp.host.files import private_directory

SCHEMA = 1
BUSY_SECONDS = 15.0


class Store:
    """Reads and writes records. Every call is one transaction, from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        private_directory(path.parent)
        with self._transaction() as connection:
            self._prepare(connection)

    def insert(self, record: MachineRecord) -> None:
        """Add a new record."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO machines VALUES (?, ?)", (record.machine_id, json.dumps(record.as_json())))

    def get(self, machine_id: str) -> MachineRecord:
        """The record of *machine_id*; raises UnknownMachine, or StorageFault when it is damaged."""
        with self._transaction() as connection:
            return self._read(connection, machine_id)

    def update(self, record: MachineRecord) -> None:
        """Replace a record; raises UnknownMachine when it has been removed meanwhile."""
        with self._transaction() as connection:
            self._write(connection, record)

    def move(self, machine_id: str, state: State, *, allowed: tuple[State, ...]) -> MachineRecord:
        """Change the state in one step, only from an *allowed* one; raises WrongState otherwise."""
        with self._transaction() as connection:
            record = self._read(connection, machine_id)
            if record.state not in allowed:
                raise WrongState(f"machine {machine_id} is {record.state}, it has to be {' or '.join(allowed)}")
            moved = record.moved(state)
            self._write(connection, moved)
            return moved

    def remove(self, machine_id: str) -> None:
        """Remove a record; one that is gone already is fine."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM machines WHERE machine_id = ?", (machine_id,))

    def all(self) -> tuple[list[MachineRecord], list[str]]:
        """All records, and the ids of those that are damaged: they harm nobody else."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT machine_id, record FROM machines ORDER BY rowid").fetchall()
        records: list[MachineRecord] = []
        damaged: list[str] = []
        for machine_id, text in rows:
            try:
                records.append(MachineRecord.from_json(json.loads(text)))
            except (ValueError, KeyError, TypeError):
                damaged.append(str(machine_id))
        return records, damaged

    def _read(self, connection: sqlite3.Connection, machine_id: str) -> MachineRecord:
        row = connection.execute("SELECT record FROM machines WHERE machine_id = ?", (machine_id,)).fetchone()
        if row is None:
            raise UnknownMachine(f"there is no machine {machine_id}")
        try:
            return MachineRecord.from_json(json.loads(row[0]))
        except (ValueError, KeyError, TypeError) as error:
            raise StorageFault(
                f"the record of machine {machine_id} is damaged",
                remedy=f"It harms no other machine. Delete it: Pyro().delete_vm('{machine_id}').",
            ) from error

    def _write(self, connection: sqlite3.Connection, record: MachineRecord) -> None:
        text = json.dumps(record.as_json())
        done = connection.execute("UPDATE machines SET record = ? WHERE machine_id = ?", (text, record.machine_id))
        if done.rowcount == 0:
            raise UnknownMachine(f"there is no machine {record.machine_id} any more")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise StorageFault(
                f"{self._path} was written by a newer pyro (schema {version}, this one knows {SCHEMA})",
                remedy="Use that pyro, or move the file away.",
            )
        if version < SCHEMA:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS machines (machine_id TEXT PRIMARY KEY, record TEXT NOT NULL)"
            )
            connection.execute(f"PRAGMA user_version = {SCHEMA}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated(self._path):
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            finally:
                connection.close()


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text:
            raise Busy(f"another process kept {path} locked for {BUSY_SECONDS:.0f} s") from error
        if "full" in text:
            raise NoSpace(f"no space left while writing {path}") from error
        raise StorageFault(f"cannot use {path}: {text}") from error
    except sqlite3.DatabaseError as error:
        raise StorageFault(
            f"{path} is not a readable database: {error}",
            remedy=f"Move {path} away; running machines end by themselves.",
        ) from error
