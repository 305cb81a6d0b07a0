"""The keeper: one small process per user that ends tasks in time, and is gone when there are none.

It also asks idle tasks for the memory they do not use (``memory``).

It is not in the way of any data: pyro works without it, and the launcher of each VM enforces the time to live by
itself. It waits for the next moment at which something is due, for the end of a process it watches, and looks once a
second whether the database has changed. It may be killed at any time: it keeps nothing in its head, and the next pyro
command starts another.
"""

import contextlib
import os
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyro_mcp.config import load
from pyro_mcp.engine.machines import Context
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.sweep import sweep
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.memory import Reclaims
from pyro_mcp.engine.tasks.records import TaskRecord, moment
from pyro_mcp.engine.tasks.tidy import next_due, tidy, watched
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import PyroError
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import Paths

TICK_SECONDS = 1.0
LOG_MOST = 64 << 10
RETRY_SECONDS = 5.0


class Keeper:
    """Its loop. *lock* is the descriptor of the keeper's lock, held."""

    def __init__(self, paths: Paths, lock: int) -> None:
        self._paths = paths
        self._lock = lock
        settings = load()
        environments = Environments(paths, settings)
        self._tasks = Tasks(Context(paths, settings, Store(paths.database), environments))
        self._reclaims = Reclaims(self._tasks)
        self._changes = _Changes(paths.database)

    def run(self) -> None:
        """Until nothing is left to keep."""
        self._log("began")
        with contextlib.closing(self._changes):
            while self._named():
                self._changes.seen()
                began = time.time()
                for line in self._tidy():
                    self._log(line)
                records, _ = self._tasks.rows.all()
                for line in self._reclaims.reclaim(records):
                    self._log(line)
                due = self._due(records)
                if due is None:
                    if self._leave():
                        break
                    continue
                if due <= began:  # what was due is not done: there is a reason, and it is in the log
                    due = time.time() + RETRY_SECONDS
                with _descriptors(watched(self._tasks, records)) as (ends, some_ended):
                    self._wait(min(due, time.time() + TICK_SECONDS) if some_ended else due, ends)
        self._log("ended: nothing is left to keep")

    def _tidy(self) -> list[str]:
        lines = tidy(self._tasks, idle=True)
        with contextlib.suppress(PyroError):
            swept = sweep(self._tasks.context)
            lines += [f"machine {name}: swept" for name in (*swept.expired, *swept.abandoned)]
        return lines

    def _due(self, records: list[TaskRecord]) -> float | None:
        """When there is something to do next, Unix seconds; ``None``: there are no tasks."""
        dues = [next_due(self._tasks, records), *map(self._reclaims.due, records)]
        return min((due for due in dues if due is not None), default=None)

    def _wait(self, due: float, ends: Sequence[int]) -> None:
        """Until *due*, the end of a process, or a change of the database."""
        poller = select.poll()
        for descriptor in ends:
            poller.register(descriptor, select.POLLIN)
        while time.time() < due and self._named():
            left = min(TICK_SECONDS, max(0.0, due - time.time()))
            if poller.poll(left * 1000 + 1) or self._changes.there:
                return

    def _leave(self) -> bool:
        """Let go of the lock, then look once more: who makes a task looks at the lock after it is on record."""
        os.close(self._lock)
        records, _ = self._tasks.rows.all()
        if not records:
            return True
        lock = try_lock(self._paths.keeper_lock)
        if lock is None:
            return True  # another keeper has it
        self._lock = lock
        return False

    def _named(self) -> bool:
        """Whether the lock is still the one that others look at; with the state removed, so are we."""
        try:
            named, held = self._paths.keeper_lock.stat(), os.fstat(self._lock)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def _log(self, line: str) -> None:
        if not self._paths.keeper_lock.exists():
            return
        path = self._paths.keeper_log
        with contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size > LOG_MOST:
                kept = path.read_bytes()[-LOG_MOST // 2 :]
                path.write_bytes(kept[kept.find(b"\n") + 1 :])
            with path.open("a") as log:
                log.write(f"{moment(time.time())} keeper {os.getpid()}: {line}\n")


class _Changes:
    """Whether others have changed the database since it was last seen (PRAGMA data_version)."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._version = -1

    def seen(self) -> None:
        """What is there now is known."""
        self._version = self._now()

    @property
    def there(self) -> bool:
        """Whether there is news."""
        return self._now() != self._version

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _now(self) -> int:
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return -2


@contextlib.contextmanager
def _descriptors(processes: set[ProcessId]) -> Iterator[tuple[list[int], bool]]:
    """A pidfd for each process that lives, and whether some did not any more."""
    with contextlib.ExitStack() as stack:
        found = []
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except OSError:
                continue
            stack.callback(os.close, descriptor)
            if process.alive:
                found.append(descriptor)
        yield found, len(found) < len(processes)


def main(words: Sequence[str]) -> int:
    """Keep the tasks of the state at the given roots; the first word is the descriptor of the lock."""
    lock = int(words[0])
    os.set_inheritable(lock, False)
    state, cache, environments = (Path(word) for word in words[1:4])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.umask(0o077)
    Keeper(Paths(state=state, cache=cache, environments=environments), lock).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
