"""A task's history: read at once, or followed while it grows."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pyro_mcp.engine.tasks.jobs import Jobs
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.outputs import read_output
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.engine.tasks.results import TaskLogs
from pyro_mcp.engine.tasks.views import entry_view
from pyro_mcp.errors import PyroError, UnknownTask
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import attempts
from pyro_mcp.model import check_between

LOOK_SECONDS = 0.25
LAST_LIMITS = (1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a history as it is followed: a command, and what it wrote since the last piece of it.

    *first*: nothing of the command was told before. *last*: the command has ended, this is all.
    """

    entry: CommandRecord
    stdout: bytes
    stderr: bytes
    first: bool
    last: bool

    def as_dict(self) -> dict[str, Any]:
        """The command as JSON has it, without its output."""
        entry = self.entry
        return {
            "sequence": entry.sequence,
            "job_id": entry.job,
            "command": entry.command,
            "cwd": entry.cwd,
            "state": entry.state,
            "exit_code": entry.exit_code,
            "duration_ms": entry.duration_ms,
            "causes": list(entry.causes),
            "reason": entry.reason,
        }


def read_logs(tasks: Tasks, jobs: Jobs, wanted: str, last: int | None) -> TaskLogs:
    """The history, or the *last* entries of it, as it stands now. An expired task has one, too."""
    if last is not None:
        check_between("last", last, LAST_LIMITS)
    with tasks.using(wanted) as task:
        with contextlib.suppress(PyroError):  # the entry stays a running one
            jobs.settle(task)
        entries = tasks.rows.entries(task.task_id, last=last)
        paths = tasks.paths(task.task_id)
        return {
            "task_id": task.task_id,
            "state": task.state,
            "cause": task.cause,
            "count": len(entries),
            "entries": [entry_view(paths, entry) for entry in entries],
        }


def follow_logs(
    tasks: Tasks, jobs: Jobs, wanted: str, stopped: Callable[[], bool], last: int | None = None
) -> Iterator[Piece]:
    """The history in its order, each command to its end, then what comes, until the task has ended, or *stopped*.

    *last*: begin with the last so many commands.

    It does not keep the task from being idle.
    """
    task = tasks.current(wanted)
    told = 0
    if last is not None:
        told = max(0, tasks.rows.count(task.task_id) - check_between("last", last, (0, LAST_LIMITS[1])))
    with contextlib.suppress(UnknownTask):  # it was deleted: that is an end, too
        for _ in attempts(Deadline.never(), longest=LOOK_SECONDS):
            task = tasks.look(tasks.rows.find(task.task_id))
            for entry in tasks.rows.entries(task.task_id, after=told):
                yield from _command(tasks, jobs, task, entry, stopped)
                told = entry.sequence
            if stopped() or task.state != "started":
                return


def _command(
    tasks: Tasks, jobs: Jobs, task: TaskRecord, entry: CommandRecord, stopped: Callable[[], bool]
) -> Iterator[Piece]:
    paths = tasks.paths(task.task_id)
    out, err, first = 0, 0, True
    for _ in attempts(Deadline.never(), longest=LOOK_SECONDS):
        if entry.unattended:
            with contextlib.suppress(PyroError):
                jobs.settle(tasks.look(tasks.rows.find(task.task_id)))
        entry = tasks.rows.entry(task.task_id, entry.job)
        stdout = read_output(paths.stdout(entry.sequence))[out:]
        stderr = read_output(paths.stderr(entry.sequence))[err:]
        last = entry.state != "running"
        if first or last or stdout or stderr:
            yield Piece(entry, stdout, stderr, first, last)
        out, err, first = out + len(stdout), err + len(stderr), False
        if last or stopped():
            return
