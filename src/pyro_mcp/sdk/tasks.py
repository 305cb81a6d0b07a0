"""The part of ``Pyro`` that works with tasks: persistent machines for many commands."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pyro_mcp.engine.machines import Context
from pyro_mcp.engine.outcome import CommandIO, Sink
from pyro_mcp.engine.tasks.results import (
    DeletedTask,
    JobSignalled,
    TaskExecResult,
    TaskList,
    TaskLogEntry,
    TaskLogs,
    TaskPort,
    TaskPorts,
    TaskRecordResult,
)
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import (
    DEFAULT_DISK_MIB,
    DEFAULT_MEM_MIB,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TTL_SECONDS,
    DEFAULT_VCPU_COUNT,
    TIMEOUT_SECONDS_MOST,
    WORKSPACE,
    CommandSpec,
    ExecutionMode,
    IsolationLevel,
    MachineSpec,
    TaskSpec,
    Terminal,
    check_path,
)
from pyro_mcp.network.policy import parse

if TYPE_CHECKING:  # imported where they are used: a run without tasks does not wait for them
    from pyro_mcp.engine.tasks.logs import Piece
    from pyro_mcp.engine.tasks.service import TaskService


class PushedSync(TypedDict):
    """The answer to a push; *workspace_sync* as ``engine.workspace.SyncResult`` has it."""

    task_id: str
    execution_mode: ExecutionMode
    workspace_sync: dict[str, Any]


class TaskJob(TaskLogEntry):
    """A job of a task: its entry in the history, and the task."""

    task_id: str


class TaskMethods:
    """Tasks, by id or by name.

    Every method raises a ``PyroError``: UnknownTask, TaskExpired (``expired at ...``), WrongState for a task that has
    ended, and what the operation itself raises.
    """

    _progress: Progress

    def create_task(  # noqa: PLR0913 - the contract's parameters
        self,
        *,
        environment: str,
        vcpu_count: int = DEFAULT_VCPU_COUNT,
        mem_mib: int = DEFAULT_MEM_MIB,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        network: bool = False,
        allow_host_compat: bool = False,
        source_path: str | Path | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        idle_seconds: int | None = None,
        disk_mib: int = DEFAULT_DISK_MIB,
        driver: str = "auto",
        require_isolation: IsolationLevel = "any",
        allow_hosts: Sequence[str] = (),
        allow_private: Sequence[str] = (),
        network_policy: str | Path | None = None,
    ) -> TaskRecordResult:
        """Make a task: a started machine that lives on until its *ttl_seconds* are over, it is idle, or deleted.

        ``/workspace`` gets what is at *source_path*: a directory or an archive (.tar, .tar.gz, .tgz). *name*: unique
        among living tasks. *idle_seconds*: end it when for so long no command ran and nobody asked for it.
        The parameters of the network are those of ``run_in_vm``.
        """
        machine = MachineSpec(
            environment=environment,
            vcpu_count=vcpu_count,
            mem_mib=mem_mib,
            disk_mib=disk_mib,
            ttl_seconds=ttl_seconds,
            network=parse(network=network, allow_hosts=allow_hosts, allow_private=allow_private, source=network_policy),
            allow_host_compat=allow_host_compat,
            driver=driver,
            require_isolation=require_isolation,
        )
        spec = TaskSpec(machine, name=name, labels=dict(labels or {}), idle_seconds=idle_seconds)
        return self._task_service.create(
            spec, None if source_path is None else check_path("source_path", source_path), self._progress
        )

    def push_task_sync(
        self,
        task_id: str,
        source_path: str | Path,
        *,
        dest: str = WORKSPACE,
        delete: bool = False,
        dry_run: bool = False,
        respect_ignore: bool = False,
    ) -> PushedSync:
        """Bring a directory or an archive to *dest* in the task, whole or not at all; only what changed crosses.

        *delete* removes what the source does not have, *dry_run* only says what would change, *respect_ignore* leaves
        out what ``.gitignore`` and ``.pyroignore`` name.
        """
        from pyro_mcp.engine.workspace import PushOptions

        options = PushOptions(delete=delete, dry_run=dry_run, respect_ignore=respect_ignore)
        task, result = self._task_service.push(
            task_id, check_path("source_path", source_path), dest, options, self._progress
        )
        return {
            "task_id": task.task_id,
            "execution_mode": task.execution_mode,
            "workspace_sync": result.as_dict(),
        }

    def pull_task_sync(self, task_id: str, path: str, dest: str | Path, *, replace: bool = False) -> PushedSync:
        """Bring a file or a directory of the task to *dest* on this host, whole or not at all.

        Nothing that the guest sends gets out of *dest*. *replace*: it takes the place of what is there.
        """
        from pyro_mcp.engine.workspace import PullOptions

        options = PullOptions(replace=replace)
        task, result = self._task_service.pull(task_id, path, check_path("dest", dest), options, self._progress)
        return {
            "task_id": task.task_id,
            "execution_mode": task.execution_mode,
            "workspace_sync": result.as_dict(),
        }

    def exec_task(  # noqa: PLR0913 - as run_in_vm
        self,
        task_id: str,
        command: str,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        terminal: Terminal | None = None,
        stdin: int | bytes | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_started: Callable[[], None] | None = None,
        control: Control | None = None,
    ) -> TaskExecResult:
        """Run one command in a task and wait for its end; any number may run at once, from any processes.

        The parameters are those of ``run_in_vm``; *cwd* is by default ``/workspace``. If this process dies, the command
        goes on and its end is recorded all the same.
        """
        spec = CommandSpec(command, timeout_seconds, env or {}, cwd, user, terminal, stdin=stdin is not None)
        with contextlib.nullcontext(control) if control else Control() as own:
            io = CommandIO(own, on_stdout, on_stderr, on_started, stdin)
            return self._task_service.execute(task_id, spec, io)

    def start_task_job(
        self,
        task_id: str,
        command: str,
        *,
        timeout_seconds: float | None = None,
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
    ) -> TaskJob:
        """Start a command and return at once; its ``job_id`` is for attach, signal and wait. By default no timeout."""
        seconds = TIMEOUT_SECONDS_MOST if timeout_seconds is None else timeout_seconds
        found, entry = self._task_service.start_job(task_id, CommandSpec(command, seconds, env or {}, cwd, user))
        return {**entry, "task_id": found}

    def attach_task_job(
        self,
        task_id: str,
        job_id: str,
        *,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        control: Control | None = None,
    ) -> TaskExecResult:
        """Follow a job's output from its beginning to its end. Leaving changes nothing for the job.

        ``control.leave()``, from any thread, ends this and not the job. Raises UnknownJob; WrongState when nobody knows
        how it ended; Interrupted when it was left.
        """
        with contextlib.nullcontext(control) if control else Control() as own:
            io = CommandIO(own, on_stdout=on_stdout, on_stderr=on_stderr)
            return self._task_service.attach(task_id, job_id, io)

    def signal_task_job(
        self, task_id: str, job_id: str, signal: int = 15, *, scope: Literal["group", "all"] = "group"
    ) -> JobSignalled:
        """Send a signal to a job's process group, or to all its processes."""
        return self._task_service.signal(task_id, job_id, signal, scope)

    def wait_task_job(
        self, task_id: str, job_id: str, *, timeout_seconds: float | None = None, control: Control | None = None
    ) -> TaskJob:
        """Wait until a job has ended; its ``state`` is still ``running`` when *timeout_seconds* came first.

        ``control.leave()``, from any thread, ends the waiting: Interrupted.
        """
        if isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float | None):
            raise InvalidRequest("timeout_seconds must be a number")
        deadline = Deadline.never() if timeout_seconds is None else Deadline.after(timeout_seconds)
        with contextlib.nullcontext(control) if control else Control() as own:
            found, entry = self._task_service.wait(task_id, job_id, deadline, own)
        return {**entry, "task_id": found}

    def status_task(self, task_id: str) -> TaskRecordResult:
        """A task's state, its last command, what it uses, the time it has left."""
        return self._task_service.status(task_id)

    def logs_task(self, task_id: str, *, last: int | None = None) -> TaskLogs:
        """A task's history with its output, oldest first; only its *last* entries if that is given."""
        return self._task_service.logs(task_id, last)

    def follow_task(
        self, task_id: str, *, stopped: Callable[[], bool] = lambda: False, last: int | None = None
    ) -> "Iterator[Piece]":
        """A task's history as it grows, from its *last* entries on, until the task has ended or *stopped* says so."""
        return self._task_service.follow(task_id, stopped, last)

    def publish_task(self, task_id: str, port: str) -> TaskPort:
        """Let a TCP port of this host lead to one of a task, as long as its machine lives; it needs no network.

        *port*: ``[ADDR:]HOSTPORT:GUESTPORT``; without ADDR on 127.0.0.1, host port 0 takes a free one. Raises
        PortUnavailable before anything is started.
        """
        from pyro_mcp.engine.publish.ports import Port

        return self._task_service.publish(task_id, Port.parse(port))

    def unpublish_task(self, task_id: str, *ports: str | int) -> TaskPorts:
        """Take published ports back, each named by its host port or ``ADDR:HOSTPORT``; without *ports* all of them."""
        return self._task_service.unpublish(task_id, [str(port) for port in ports])

    def delete_task(self, task_id: str) -> DeletedTask:
        """End a task and remove all that is its own, also its history."""
        return {"task_id": self._task_service.delete(task_id), "deleted": True, "reason": "explicit_delete"}

    def list_tasks(self) -> TaskList:
        """All tasks of this user; those that expired within the last hour, too."""
        return self._task_service.all()

    def extend_task(
        self, task_id: str, *, ttl_seconds: int | None = None, idle_seconds: int | None = None
    ) -> TaskRecordResult:
        """Let a task live *ttl_seconds* from now, and give it another idle time (0: none)."""
        return self._task_service.extend(task_id, ttl_seconds, idle_seconds)

    @property
    def _context(self) -> Context:
        raise NotImplementedError

    @property
    def _task_service(self) -> "TaskService":
        from pyro_mcp.engine.tasks.service import TaskService

        return TaskService(self._context)
