"""Commands in a task: each with a number and an id, recorded before it starts, completed whatever becomes of pyro.

The process that runs a command carries its streams, keeps them in the task's files and completes the entry. When it
dies, the job goes on in the guest, and whoever looks next completes the entry (``settle``). Its id makes sure that
nothing ever runs twice.
"""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from pyro_mcp.engine import host_compat
from pyro_mcp.engine.commands import follow_job, outcome_of, run_job
from pyro_mcp.engine.outcome import CommandIO, Outcome, Tee
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.outputs import Recorder
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.engine.tasks.settle import LINE_SECONDS, Settler, Shown, completed
from pyro_mcp.errors import (
    Interrupted,
    InvalidRequest,
    LinkTimeout,
    MachineDied,
    MachineFault,
    PyroError,
    TaskExpired,
    UnknownTask,
    WrongState,
)
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.client import Agent, ChannelOpener
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.execution import execute, launch
from pyro_mcp.guest.faults import AgentRefused, Progress
from pyro_mcp.guest.outcome import check_job, new_job
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import attempts
from pyro_mcp.model import WORKSPACE, CommandSpec

TIMED_OUT = 124
SHORT_SECONDS = 30.0
WATCH_SECONDS = 0.25
LAST_SECONDS = 2.0
# The guest remembers the ends of its last 256 jobs: long before that, those nobody has asked for are recorded.
SETTLE_EVERY = 64
MAKE_WORKSPACE = CommandSpec(f"mkdir -p {WORKSPACE}", cwd="/")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Done:
    """A command's task, and its entry as it stands now."""

    task: TaskRecord
    entry: CommandRecord


class Jobs:
    """What runs, and ran, in tasks."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._rows = tasks.rows
        self._settler = Settler(tasks)

    def execute(self, wanted: str, command: CommandSpec, io: CommandIO) -> Done:
        """Run *command* and wait for its end.

        Raises TaskExpired, WrongState, AgentRefused (it was not started), MachineFault, Interrupted. The entry is
        completed in every case, or left to whoever looks next.
        """
        with self._tasks.using(wanted) as task:
            entry = self._begin(task, command, detached=False)
            try:
                with contextlib.closing(Recorder(self._tasks.paths(task.task_id), entry.sequence, io)) as recorder:
                    outcome = self._run(task, entry, command, io, recorder)
                    recorder.finish()
                return Done(task, self._rows.finish(task.task_id, completed(entry, outcome, recorder)))
            except BaseException as error:
                self._give_up(task, entry, error)
                self._say_why(task, error)
                raise

    def start(self, wanted: str, command: CommandSpec) -> Done:
        """Start *command* and leave it alone; its job id is in the entry."""
        if command.stdin or command.terminal is not None:
            raise InvalidRequest("a detached command has no input and no terminal")
        with self._tasks.using(wanted) as task:
            if not _in_guest(task):
                raise WrongState("a detached command needs a guest; host-compat has none")
            entry = self._begin(task, command, detached=True)
            try:
                self._in_workspace(task, command, lambda channels, spec: _launch(channels, spec, entry.job))
            except BaseException as error:
                self._give_up(task, entry, error)
                self._say_why(task, error)
                raise
            self._rows.release(task.task_id, entry.sequence)
            return Done(task, replace(entry, client=None))

    def follow(self, wanted: str, job: str, io: CommandIO) -> Done:
        """Stream a job's output, from its beginning, until it ends.

        Several may follow a job. Ending this changes nothing for the job. Raises UnknownJob, or Interrupted when the
        control says to leave.
        """
        check_job(job)
        with self._tasks.using(wanted) as found:
            task = found
            shown: Shown = (0, 0)
            while True:
                io.control.check_left()
                entry = self._rows.entry(task.task_id, job)
                shown = self._settler.replay(task, entry, io, shown)
                if entry.state != "running":
                    return Done(task, entry)
                task = self._tasks.look(self._rows.find(task.task_id))
                mine = self._rows.claim(task.task_id, entry.sequence) if entry.unattended else None
                if mine is not None:
                    entry = self._settler.carry(task, mine, io)
                    if entry.state != "running":
                        return Done(task, entry)
                elif task.state == "started" and _in_guest(task):
                    self._watch(task, entry, io, shown)
                    return Done(task, self._ended(task.task_id, job, io.control))
                self._pause(task.task_id, job, io.control)

    def wait(self, wanted: str, job: str, deadline: Deadline, control: Control | None = None) -> Done:
        """Wait until a job has ended, or until *deadline*; its entry as it stands then.

        Raises UnknownJob, or Interrupted when *control* says to leave.
        """
        check_job(job)
        with self._tasks.using(wanted) as found:
            task = found
            for _ in attempts(deadline, longest=WATCH_SECONDS):
                if control is not None:
                    control.check_left()
                entry = self._rows.entry(task.task_id, job)
                if entry.unattended:
                    task = self._tasks.look(self._rows.find(task.task_id))
                    self._settler.settle(task, only=job)
                    entry = self._rows.entry(task.task_id, job)
                if entry.state != "running":
                    break
            return Done(task, entry)

    def signal(self, wanted: str, job: str, number: int, scope: Literal["group", "all"]) -> tuple[str, bool]:
        """Send a signal to a job; the task's id, and whether a process got it. A job that has ended gets nothing."""
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 64:
            raise InvalidRequest(f"{number!r:.60} is not a signal number")
        if scope not in ("group", "all"):
            raise InvalidRequest("scope must be group or all")
        check_job(job)
        with self._tasks.using(wanted) as task:
            if self._rows.entry(task.task_id, job).state != "running":
                return task.task_id, False
            task.require_started()
            return task.task_id, self._signal(task, job, number, scope)

    def settle(self, task: TaskRecord) -> None:
        """Complete the entries whose client is gone; see ``Settler``."""
        self._settler.settle(task)

    def _begin(self, task: TaskRecord, command: CommandSpec, *, detached: bool) -> CommandRecord:
        task.require_started()
        entry = CommandRecord(
            job=new_job(),
            command=command.command,
            cwd=command.cwd or WORKSPACE,
            execution_mode=task.execution_mode,
            started_at=time.time(),
            client=ProcessId.current(),
            detached=detached,
        )
        begun = self._rows.begin(task.task_id, entry)
        if begun.sequence % SETTLE_EVERY == 0:
            with contextlib.suppress(PyroError):
                self._settler.settle(task)
        return begun

    def _run(
        self, task: TaskRecord, entry: CommandRecord, command: CommandSpec, io: CommandIO, recorder: Recorder
    ) -> Outcome:
        if not _in_guest(task):
            directory = private_directory(self._tasks.paths(task.task_id).workspace)
            return host_compat.execute(command, directory, io, recorder)
        limit = Deadline.after(command.timeout_seconds)

        def run(channels: ChannelOpener, spec: CommandSpec) -> Outcome:
            return outcome_of(run_job(channels, spec, entry.job, io=io, sinks=recorder, line_seconds=LINE_SECONDS))

        try:
            return self._in_workspace(task, command, run)
        except LinkTimeout:
            if not limit.passed:
                raise
            took = round(command.timeout_seconds * 1000)
            return Outcome(TIMED_OUT, timed_out=True, causes=("timeout", "unresponsive"), duration_ms=took)

    def _in_workspace(
        self, task: TaskRecord, command: CommandSpec, run: Callable[[ChannelOpener, CommandSpec], Result]
    ) -> Result:
        """*run* the command, by default in the workspace, which is made again if somebody has removed it."""
        channels = self._settler.channels(task)
        prepared = self._tasks.context.environments.prepared
        if command.cwd:
            return run(channels, prepared(task.environment, command))
        command = prepared(task.environment, replace(command, cwd=WORKSPACE))
        try:
            return run(channels, command)
        except AgentRefused as refused:  # nothing was started
            if refused.guest_code != "bad_cwd":
                raise
        make_workspace(channels)
        return run(channels, command)

    def _watch(self, task: TaskRecord, entry: CommandRecord, io: CommandIO, shown: Shown) -> None:
        """Follow a job beside the process that records it."""
        start = Progress(entry.job, *shown)
        try:
            follow_job(self._settler.channels(task), start, io=io, sinks=Tee(io), line_seconds=LINE_SECONDS)
        except AgentRefused as refused:
            if refused.guest_code != "no_such_job":
                raise

    def _ended(self, task_id: str, job: str, control: Control) -> CommandRecord:
        """The entry of a job that has ended, once it is complete; by our hand if its client is dead."""
        while True:
            entry = self._rows.entry(task_id, job)
            if entry.state != "running":
                return entry
            if entry.unattended:
                self._settler.settle(self._tasks.look(self._rows.find(task_id)), only=job)
            self._pause(task_id, job, control)

    def _pause(self, task_id: str, job: str, control: Control) -> None:
        """Wait a moment, or until the entry is complete."""
        for _ in attempts(Deadline.after(WATCH_SECONDS)):
            control.check_left()
            if self._rows.entry(task_id, job).state != "running":
                return

    def _signal(self, task: TaskRecord, job: str, number: int, scope: Literal["group", "all"]) -> bool:
        try:
            return Agent(self._settler.channels(task)).signal(job, number, scope, Deadline.after(SHORT_SECONDS))
        except AgentRefused as refused:
            if refused.guest_code == "no_such_job":
                return False
            raise

    def _give_up(self, task: TaskRecord, entry: CommandRecord, error: BaseException) -> None:
        """The command's client goes on no further: complete the entry if its end is known, else leave it to others.

        A command whose output nobody takes any more (a closed pipe, a failing callback, Ctrl-C) is told to end.
        """
        with contextlib.suppress(PyroError):
            if isinstance(error, AgentRefused):
                self._rows.finish(task.task_id, entry.lost(f"not started: {error.cause}"))
                return
            self._rows.release(task.task_id, entry.sequence)
            task = self._tasks.look(self._rows.find(task.task_id))
            unwanted = isinstance(error, Interrupted) or not isinstance(error, PyroError)
            told = unwanted and not entry.detached and task.state == "started" and _in_guest(task)
            if told:
                self._signal(task, entry.job, signal.SIGTERM, "group")
            for _ in attempts(Deadline.after(LAST_SECONDS if told else 0.0), longest=WATCH_SECONDS):
                self._settler.settle(task, only=entry.job)
                if self._rows.entry(task.task_id, entry.job).state != "running":
                    return

    def _say_why(self, task: TaskRecord, error: BaseException) -> None:
        """Raise what explains *error* better: the task was deleted, has expired, or its VM has ended."""
        if not isinstance(error, MachineFault | WrongState):
            return
        try:
            now = self._tasks.look(self._rows.find(task.task_id))
        except UnknownTask:
            raise UnknownTask(f"task {task.task_id} was deleted while the command ran") from error
        if now.state == "deleting":
            raise UnknownTask(f"task {task.task_id} was deleted while the command ran") from error
        if now.state == "expired":
            raise TaskExpired(f"task {task.task_id} {now.cause} while the command ran") from error
        if now.state == "stopped" and isinstance(error, MachineFault):
            raise MachineDied(f"task {task.task_id} stopped while the command ran: {now.cause}") from error


def _in_guest(task: TaskRecord) -> bool:
    """Whether the task's commands run in a VM, as they should."""
    return task.execution_mode != "host_compat"


def make_workspace(channels: ChannelOpener) -> None:
    """Make sure that the workspace is there. Raises WrongState when it cannot be."""
    limit = Deadline.after(SHORT_SECONDS)
    with channels.open(limit) as session:
        sinks = CaptureSinks()
        end = execute(session, MAKE_WORKSPACE, new_job(), sinks=sinks, deadline=limit)
    if end.exit_code != 0:
        raise WrongState(f"{WORKSPACE} cannot be made in the guest", details=sinks.stderr.text().splitlines()[-3:])


def _launch(channels: ChannelOpener, command: CommandSpec, job: str) -> None:
    limit = Deadline.after(LINE_SECONDS)
    with channels.open(limit) as session:
        launch(session, command, job, deadline=limit)
