"""The records of all machines of a user: one row per machine."""

import json
import sqlite3
from pathlib import Path

from pyro_mcp.engine.database import Database
from pyro_mcp.engine.records import MachineRecord, State
from pyro_mcp.errors import CapacityReached, StorageFault, UnknownMachine, WrongState


class Store:
    """Reads and writes records. Every call is one transaction, from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)

    def insert(self, record: MachineRecord, *, most: int = 0, instead_of: str = "") -> None:
        """Add a new record. Raises CapacityReached when there are *most* already (0: any number).

        *instead_of*: the id of a machine that does not count, because it waits for this one.
        """
        with self.database.transaction() as connection:
            if most and sum(one.machine_id != instead_of for one in _all(connection)[0]) >= most:
                raise CapacityReached(f"max active VMs reached ({most}); delete old VMs first")
            connection.execute("INSERT INTO machines VALUES (?, ?)", (record.machine_id, json.dumps(record.as_json())))

    def get(self, machine_id: str) -> MachineRecord:
        """The record of *machine_id*; raises UnknownMachine, or StorageFault when it is damaged."""
        with self.database.transaction() as connection:
            return self._read(connection, machine_id)

    def update(self, record: MachineRecord) -> None:
        """Replace a record; raises UnknownMachine when it has been removed meanwhile."""
        with self.database.transaction() as connection:
            self._write(connection, record)

    def move(
        self, machine_id: str, state: State, *, allowed: tuple[State, ...], keeps_disk: bool | None = None
    ) -> MachineRecord:
        """Change the state in one step, only from an *allowed* one; raises WrongState otherwise.

        *keeps_disk*: the new value of that field; ``None`` leaves it.
        """
        with self.database.transaction() as connection:
            record = self._read(connection, machine_id)
            if record.state not in allowed:
                raise WrongState(f"machine {machine_id} is {record.state}, it has to be {' or '.join(allowed)}")
            moved = record.moved(state, keeps_disk=record.keeps_disk if keeps_disk is None else keeps_disk)
            self._write(connection, moved)
            return moved

    def remove(self, machine_id: str) -> None:
        """Remove a record; one that is gone already is fine."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM machines WHERE machine_id = ?", (machine_id,))

    def all(self) -> tuple[list[MachineRecord], list[str]]:
        """All records, and the ids of those that are damaged: they harm nobody else."""
        with self.database.transaction() as connection:
            return _all(connection)

    def has_tasks(self) -> bool:
        """Whether a task is on record, sound or damaged: ``engine.tasks`` has them in the same file."""
        with self.database.transaction() as connection:
            return connection.execute("SELECT 1 FROM tasks LIMIT 1").fetchone() is not None

    def _read(self, connection: sqlite3.Connection, machine_id: str) -> MachineRecord:
        row = connection.execute("SELECT record FROM machines WHERE machine_id = ?", (machine_id,)).fetchone()
        if row is None:
            raise UnknownMachine(f"there is no machine {machine_id}")
        try:
            return _machine(machine_id, row[0])
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


def _all(connection: sqlite3.Connection) -> tuple[list[MachineRecord], list[str]]:
    rows = connection.execute("SELECT machine_id, record FROM machines ORDER BY rowid").fetchall()
    records: list[MachineRecord] = []
    damaged: list[str] = []
    for machine_id, text in rows:
        try:
            records.append(_machine(machine_id, text))
        except (ValueError, KeyError, TypeError):
            damaged.append(str(machine_id))
    return records, damaged


def _machine(machine_id: str, text: str) -> MachineRecord:
    record = MachineRecord.from_json(json.loads(text))
    if record.machine_id != machine_id:
        raise ValueError("the record of another machine")
    return record
