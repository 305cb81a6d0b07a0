"""Everything that can be asked of tasks, as the SDK offers it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from pyro_mcp.engine.machines import Context
from pyro_mcp.engine.network_view import report_of
from pyro_mcp.engine.outcome import CommandIO
from pyro_mcp.engine.publish.ports import Port
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.sweep import Swept, sweep
from pyro_mcp.engine.tasks.extend import extend
from pyro_mcp.engine.tasks.jobs import Jobs, make_workspace
from pyro_mcp.engine.tasks.keeping import ensure_keeper
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.logs import Piece, follow_logs, read_logs
from pyro_mcp.engine.tasks.publications import publish, unpublish
from pyro_mcp.engine.tasks.records import EMPTY_SEED, TaskRecord
from pyro_mcp.engine.tasks.results import (
    JobSignalled,
    TaskExecResult,
    TaskList,
    TaskLogEntry,
    TaskLogs,
    TaskPort,
    TaskPorts,
    TaskRecordResult,
    WorkspaceSeed,
)
from pyro_mcp.engine.tasks.tidy import tidy
from pyro_mcp.engine.tasks.views import entry_view, exec_view, task_view, usage_of
from pyro_mcp.engine.workspace import PullOptions, PullResult, PushOptions, SyncResult, pull, push
from pyro_mcp.errors import InvalidRequest, WrongState
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import WORKSPACE, CommandSpec, TaskSpec

SYNC_SECONDS = 3600.0
ARCHIVES = (".tar", ".tar.gz", ".tgz")


class TaskService:
    """The tasks of one user."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks = Tasks(context)
        self._jobs = Jobs(self._tasks)

    def create(self, spec: TaskSpec, source: Path | None, progress: Progress) -> TaskRecordResult:
        """Make a task whose workspace holds what is at *source*."""
        if source is not None:
            check_source(source)

        def prepare(_record: TaskRecord, machine: MachineRecord) -> WorkspaceSeed:
            return self._seed(machine, source, progress)

        def begun() -> None:
            ensure_keeper(self._context.paths)

        return task_view(self._tasks, self._tasks.create(spec, prepare, progress, begun))

    def execute(self, wanted: str, command: CommandSpec, io: CommandIO) -> TaskExecResult:
        """Run a command to its end."""
        return exec_view(self._jobs.execute(wanted, command, io), io)

    def start_job(self, wanted: str, command: CommandSpec) -> tuple[str, TaskLogEntry]:
        """Start a command and leave it alone."""
        done = self._jobs.start(wanted, command)
        return done.task.task_id, entry_view(self._tasks.paths(done.task.task_id), done.entry, with_output=False)

    def attach(self, wanted: str, job: str, io: CommandIO) -> TaskExecResult:
        """Stream a job's output to its end. Raises WrongState when nobody knows how it ended."""
        done = self._jobs.follow(wanted, job, io)
        if done.entry.state == "lost":
            raise WrongState(
                f"nobody knows how job {job} ended: {done.entry.reason}",
                remedy="What is known of its output is in the history (`pyro task logs`).",
            )
        return exec_view(done, io)

    def wait(self, wanted: str, job: str, deadline: Deadline, control: Control) -> tuple[str, TaskLogEntry]:
        """Wait for a job's end."""
        done = self._jobs.wait(wanted, job, deadline, control)
        return done.task.task_id, entry_view(self._tasks.paths(done.task.task_id), done.entry, with_output=False)

    def signal(self, wanted: str, job: str, number: int, scope: Literal["group", "all"]) -> JobSignalled:
        """Send a signal to a job."""
        task_id, delivered = self._jobs.signal(wanted, job, number, scope)
        return {"task_id": task_id, "job_id": job, "signal": number, "delivered": delivered}

    def status(self, wanted: str) -> TaskRecordResult:
        """A task, with what it uses."""
        with self._tasks.using(wanted) as record:
            usage = usage_of(self._tasks, record)
            network = report_of(self._tasks.context.paths, self._tasks.machine(record.task_id))
            return task_view(self._tasks, record, usage, network)

    def all(self) -> TaskList:
        """All tasks."""
        records, damaged = self._tasks.rows.all()
        views = [task_view(self._tasks, self._tasks.look(record)) for record in records]
        return {"count": len(views), "tasks": views, "damaged": damaged}

    def logs(self, wanted: str, last: int | None) -> TaskLogs:
        """A task's history."""
        return read_logs(self._tasks, self._jobs, wanted, last)

    def follow(self, wanted: str, stopped: Callable[[], bool], last: int | None) -> Iterator[Piece]:
        """A task's history as it grows."""
        return follow_logs(self._tasks, self._jobs, wanted, stopped, last)

    def delete(self, wanted: str) -> str:
        """Remove a task; its id."""
        return self._tasks.delete(wanted)

    def extend(self, wanted: str, ttl_seconds: int | None, idle_seconds: int | None) -> TaskRecordResult:
        """Give a task another time to live, another idle time, or both."""
        record = extend(self._tasks, wanted, ttl_seconds, idle_seconds)
        return task_view(self._tasks, record)

    def publish(self, wanted: str, port: Port) -> TaskPort:
        """Let a port of this host lead to a port of a task."""
        record, publication = publish(self._tasks, wanted, port)
        return {"task_id": record.task_id, **publication.port.public()}

    def unpublish(self, wanted: str, places: Iterable[str]) -> TaskPorts:
        """Take published ports back; all when none is named."""
        record, taken = unpublish(self._tasks, wanted, places)
        return {
            "task_id": record.task_id,
            "unpublished_ports": [one.port.public() for one in taken],
            "published_ports": [one.port.public() for one in record.published],
        }

    def push(
        self, wanted: str, source: Path, destination: str, options: PushOptions, progress: Progress
    ) -> tuple[TaskRecord, SyncResult]:
        """Bring files into the workspace, whole or not at all."""
        check_source(source)
        with self._tasks.using(wanted) as task:
            channels = self._channels(task)
            deadline = Deadline.after(SYNC_SECONDS)
            return task, push(channels, source, destination, options=options, progress=progress, deadline=deadline)

    def pull(
        self, wanted: str, source: str, destination: Path, options: PullOptions, progress: Progress
    ) -> tuple[TaskRecord, PullResult]:
        """Bring files out of the workspace, whole or not at all."""
        with self._tasks.using(wanted) as task:
            channels = self._channels(task)
            deadline = Deadline.after(SYNC_SECONDS)
            return task, pull(channels, source, destination, options=options, progress=progress, deadline=deadline)

    def _channels(self, task: TaskRecord) -> ChannelOpener:
        task.require_started()
        machine = self._tasks.machine(task.task_id)
        if machine is None or machine.running is None:
            raise WrongState(f"task {task.task_id} has no guest to move files to or from")
        return self._tasks.machines.channels(machine)

    def _seed(self, machine: MachineRecord, source: Path | None, progress: Progress) -> WorkspaceSeed:
        if machine.running is None:
            if source is not None:
                raise InvalidRequest("a source needs a guest; host-compat has none")
            return EMPTY_SEED
        channels = self._tasks.machines.channels(machine)
        if source is None:
            make_workspace(channels)
            return EMPTY_SEED
        progress.phase("seed", source=source)
        done = push(channels, source, options=PushOptions(), progress=progress, deadline=Deadline.after(SYNC_SECONDS))
        for warning in done.warnings:
            progress.note(warning)
        return {
            "mode": done.mode,
            "source_path": done.source_path,
            "destination": WORKSPACE,
            "entry_count": done.entry_count,
            "bytes_written": done.bytes_written,
        }


def check_source(source: Path) -> None:
    """Raise InvalidRequest unless *source* is a directory or an archive that is there."""
    if source.is_dir():
        return
    if not source.exists():
        raise InvalidRequest(f"{source} does not exist")
    if not source.is_file() or not source.name.endswith(ARCHIVES):
        raise InvalidRequest(f"{source} must be a directory, or an archive ending in {', '.join(ARCHIVES)}")


def open_state(context: Context) -> Swept:
    """What every pyro command that works with machines begins with: sweep, and see to the keeper if there are tasks."""
    swept = sweep(context)
    tasks = Tasks(context)
    records, damaged = tasks.rows.all()
    if records or damaged or context.paths.tasks.exists():
        tidy(tasks)
    if records:
        ensure_keeper(context.paths)
    return swept
