"""Completing the entries of commands whose client is gone, from what the guest still knows; and taking over a live one.

Nothing is started here. Where the guest does not know a job, its id is used up by a command that does nothing: should
the real one still be on its way through the link, it cannot start any more. So what is recorded stays true.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from pyro_mcp.engine.commands import follow_job
from pyro_mcp.engine.outcome import CommandIO, Outcome
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.outputs import Recorder, read_output
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.errors import PyroError, WrongState
from pyro_mcp.guest.client import Agent, ChannelOpener
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.execution import attach, launch
from pyro_mcp.guest.faults import AgentRefused, Progress
from pyro_mcp.guest.outcome import Exit
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec

LINE_SECONDS = 600.0  # an exec waits for a line as long as others use them all
SETTLE_SECONDS = 10.0
NOTHING = CommandSpec("exit 125")
Shown = tuple[int, int]


class Settler:
    """Completes entries; any number of processes may do so at once, each entry is completed by one."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._rows = tasks.rows

    def channels(self, task: TaskRecord) -> ChannelOpener:
        """The way to a task's agent. Raises WrongState when there is none."""
        machine = self._tasks.machine(task.task_id)
        if machine is None:
            raise WrongState(f"the machine of task {task.task_id} is gone")
        return self._tasks.machines.channels(machine)

    def settle(self, task: TaskRecord, *, only: str | None = None) -> None:
        """Complete what is unattended and has ended; *only* the job of that id. What runs is left running.

        *task* is as ``Tasks.look`` gave it. Raises what the link raises.
        """
        waiting = [one for one in self._rows.running(task.task_id) if one.unattended and only in (None, one.job)]
        if not waiting:
            return
        if task.state != "started" or task.execution_mode == "host_compat":
            why = task.cause if task.state != "started" else "pyro ended while the command ran on the host"
            for entry in waiting:
                self._lose(task, entry, f"the task {why}" if task.state == "expired" else why or task.state)
            return
        channels = self.channels(task)
        known = {job.job: job for job in Agent(channels).jobs(Deadline.after(SETTLE_SECONDS))}
        for entry in waiting:
            job = known.get(entry.job)
            if job is None or not job.running:
                self._complete(task, channels, entry, known=job is not None)

    def carry(self, task: TaskRecord, entry: CommandRecord, io: CommandIO) -> CommandRecord:
        """Carry the streams of an entry that this process has claimed, to the job's end; the completed entry."""
        with self._attending(task, entry), self._recording(task, entry, io) as recorder:
            if task.state != "started":
                return self._rows.finish(task.task_id, entry.lost(task.cause or task.state))
            start = Progress(entry.job, recorder.stdout.offset, recorder.stderr.offset)
            try:
                end = follow_job(self.channels(task), start, io=io, sinks=recorder, line_seconds=LINE_SECONDS)
            except AgentRefused as refused:
                if refused.guest_code != "no_such_job":
                    raise
                return self._fence(task, self.channels(task), entry)
            return self._finish(task, entry, end, recorder)

    def replay(self, task: TaskRecord, entry: CommandRecord, io: CommandIO, shown: Shown = (0, 0)) -> Shown:
        """Show what is kept of a command's output beyond what was *shown*; how much that is now."""
        paths = self._tasks.paths(task.task_id)
        out = read_output(paths.stdout(entry.sequence))[shown[0] :]
        err = read_output(paths.stderr(entry.sequence))[shown[1] :]
        for data, captured, sink in (
            (out, io.captured.stdout, io.on_stdout),
            (err, io.captured.stderr, io.on_stderr),
        ):
            if data:
                captured.add(data)
                if sink is not None:
                    sink(data)
        return shown[0] + len(out), shown[1] + len(err)

    def _complete(self, task: TaskRecord, channels: ChannelOpener, waiting: CommandRecord, *, known: bool) -> None:
        entry = self._rows.claim(task.task_id, waiting.sequence)
        if entry is None:
            return
        with self._attending(task, entry):
            if not known:
                self._fence(task, channels, entry)
                return
            with Control() as control, self._recording(task, entry, CommandIO(control)) as recorder:
                start = Progress(entry.job, recorder.stdout.offset, recorder.stderr.offset)
                limit = Deadline.after(SETTLE_SECONDS)
                with channels.open(limit) as session:
                    end = attach(session, start, sinks=recorder, deadline=limit)
                self._finish(task, entry, end, recorder)

    def _finish(self, task: TaskRecord, entry: CommandRecord, end: Exit, recorder: Recorder) -> CommandRecord:
        recorder.finish()
        outcome = Outcome(end.exit_code, end.timed_out, end.causes, end.duration_ms, end.error)
        done = completed(entry, outcome, recorder)
        # The guest counts what no client ever got, too.
        done = replace(
            done,
            stdout_bytes=max(done.stdout_bytes, end.stdout_bytes),
            stderr_bytes=max(done.stderr_bytes, end.stderr_bytes),
        )
        return self._rows.finish(task.task_id, done)

    def _fence(self, task: TaskRecord, channels: ChannelOpener, entry: CommandRecord) -> CommandRecord:
        """An entry whose job the guest does not know: make sure that it never will, then call it lost."""
        limit = Deadline.after(SETTLE_SECONDS)
        with channels.open(limit) as session:
            fresh = launch(session, NOTHING, entry.job, deadline=limit).fresh
        if not fresh:
            return entry  # it came through after all, and is completed by whoever looks next
        reason = "pyro ended before the command reached the guest, or too long before anybody asked for its end"
        return self._rows.finish(task.task_id, entry.lost(reason))

    def _lose(self, task: TaskRecord, entry: CommandRecord, reason: str) -> None:
        mine = self._rows.claim(task.task_id, entry.sequence)
        if mine is None:
            return
        with Control() as control, self._recording(task, mine, CommandIO(control)) as recorder:
            recorder.finish()
            kept = replace(mine, stdout_bytes=recorder.stdout.total, stderr_bytes=recorder.stderr.total)
        self._rows.finish(task.task_id, kept.lost(reason))

    @contextlib.contextmanager
    def _attending(self, task: TaskRecord, entry: CommandRecord) -> Iterator[None]:
        """This process has the entry; if it is not complete afterwards, others may have it."""
        try:
            yield
        finally:
            with contextlib.suppress(PyroError):
                self._rows.release(task.task_id, entry.sequence)

    @contextlib.contextmanager
    def _recording(self, task: TaskRecord, entry: CommandRecord, io: CommandIO) -> Iterator[Recorder]:
        with contextlib.closing(Recorder(self._tasks.paths(task.task_id), entry.sequence, io)) as recorder:
            yield recorder


def completed(entry: CommandRecord, outcome: Outcome, recorder: Recorder) -> CommandRecord:
    """The entry of a command that has ended."""
    return replace(
        entry,
        state="done",
        client=None,
        recorded_at=time.time(),
        exit_code=outcome.exit_code,
        duration_ms=outcome.duration_ms,
        timed_out=outcome.timed_out,
        causes=outcome.causes,
        reason=outcome.error,
        stdout_bytes=recorder.stdout.total,
        stderr_bytes=recorder.stderr.total,
        stdout_truncated=recorder.stdout.truncated,
        stderr_truncated=recorder.stderr.truncated,
    )
