"""The one SQLite file (WAL) of a user's records: its schema, its transactions, and SQLite's errors in our words."""

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyro_mcp.errors import Busy, NoSpace, StorageFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory
from pyro_mcp.host.wait import attempts

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


class _Opened(NamedTuple):
    """A connection, the process that may use it (SQLite: not one that was forked off), and the file it is to."""

    connection: sqlite3.Connection
    pid: int
    file: tuple[int, int]


class Database:
    """Short transactions, from any thread and any process. Made, or brought to the present schema, when it is opened.

    One connection is kept: whenever the last one to a file is closed, SQLite writes its log back and waits for the
    disk, which took several times as long as all that a run has to say. Raises StorageFault for a file of a newer
    pyro, or for one that is no database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._inherited: list[_Opened] = []  # of the process we were forked off from: not even to be closed
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
        with self._lock, _translated(self.path):
            connection = self._kept() or self._open()
            try:
                yield connection
            finally:
                if connection.in_transaction:  # it could not even be rolled back, or a signal came in between
                    self._opened = None
                    connection.close()

    def _kept(self) -> sqlite3.Connection | None:
        """The connection, if it is this process's and to the file that is there now."""
        opened = self._opened
        if opened is None:
            return None
        if opened.pid == os.getpid() and opened.file == _file(self.path):
            return opened.connection
        self._opened = None
        if opened.pid != os.getpid():
            self._inherited.append(opened)
        else:
            opened.connection.close()
        return None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        file = _file(self.path)
        if file is not None:
            self._opened = _Opened(connection, os.getpid(), file)
        weakref.finalize(self, connection.close).atexit = False
        return connection

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


def _file(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file use a write-ahead log. Of several that open a new file, SQLite makes all but one fail at once."""
    limit = Deadline.after(BUSY_SECONDS)
    for _ in attempts(limit):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if limit.passed or "locked" not in str(error):
                raise
        else:
            return


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
