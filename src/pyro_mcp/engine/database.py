"""The one SQLite file (WAL) of a user's records: its schema, its transactions, and SQLite's errors in our words."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.errors import Busy, NoSpace, StorageFault
from pyro_mcp.host.files import private_directory

BUSY_SECONDS = 15.0
# What leads from each version to the next; user_version (PRAGMA) counts how many of them the file has seen.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    ("CREATE TABLE IF NOT EXISTS machines (machine_id TEXT PRIMARY KEY, record TEXT NOT NULL)",),
    (
        """CREATE TABLE IF NOT EXISTS tasks (
            task_id TEXT PRIMARY KEY, name TEXT, sequence INTEGER NOT NULL DEFAULT 0, record TEXT NOT NULL)""",
        """CREATE TABLE IF NOT EXISTS commands (
            task_id TEXT NOT NULL, sequence INTEGER NOT NULL, job TEXT NOT NULL, state TEXT NOT NULL,
            record TEXT NOT NULL, PRIMARY KEY (task_id, sequence)) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX IF NOT EXISTS commands_by_job ON commands (task_id, job)",
        "CREATE INDEX IF NOT EXISTS commands_by_state ON commands (task_id, state)",
    ),
)
SCHEMA = len(MIGRATIONS)


class Database:
    """Short transactions, from any thread and any process. Made, or brought to the present schema, when it is opened.

    Raises StorageFault for a file of a newer pyro, or for one that is no database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        private_directory(path.parent)
        with self._connection() as connection:
            if self._version(connection) != SCHEMA:
                with _in_one_step(connection):
                    self._migrate(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Nobody else writes while the block runs; what it did counts when it is left, unless it raises."""
        with self._connection() as connection, _in_one_step(connection):
            yield connection

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with _translated(self.path):
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                yield connection
            finally:
                connection.close()

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            raise StorageFault(
                f"{self.path} was written by a newer pyro (schema {version}, this one knows {SCHEMA})",
                remedy="Use that pyro, or move the file away.",
            )
        return version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Take the steps that are missing; the version is read again, now that nobody else takes them."""
        for step in MIGRATIONS[self._version(connection) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


@contextlib.contextmanager
def _in_one_step(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


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
