"""The life of a task: made, found, extended, ended, deleted; and its end noticed by whoever looks.

What is true of a task is not only in its record: its time passes, its VM may die. ``current`` brings a record up to
that; every operation begins with it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.tasks.activity import if_unused, in_use, last_used
from pyro_mcp.engine.tasks.ending import ending_of
from pyro_mcp.engine.tasks.records import TaskRecord, end_publishers, moment
from pyro_mcp.engine.tasks.results import WorkspaceSeed
from pyro_mcp.engine.tasks.rows import TaskRows
from pyro_mcp.errors import PyroError, StorageFault, UnknownMachine, UnknownTask
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree
from pyro_mcp.host.locks import locked
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import MACHINE_ID, TaskSpec, new_machine_id
from pyro_mcp.paths import TaskPaths

CHANGE_SECONDS = 30.0
KEPT_SECONDS = 3600.0  # how long an expired task can still be asked about

Prepare = Callable[[TaskRecord, MachineRecord], WorkspaceSeed]


class Tasks:
    """Tasks of one user, known across processes."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.machines = Machines(context)
        self.rows = TaskRows(context.store.database)

    def paths(self, task_id: str) -> TaskPaths:
        """The files of a task."""
        return self.context.paths.task(task_id)

    def create(self, spec: TaskSpec, prepare: Prepare, progress: Progress, begun: Callable[[], None]) -> TaskRecord:
        """Make a task and start its machine; *prepare* fills its workspace. When that fails, nothing of it stays.

        *begun* is called as soon as the task is on record.
        """
        record = _new_record(spec)
        task_id = record.task_id
        try:
            self.rows.insert(record)
            private_directory(self.paths(task_id).commands)
            begun()
            with in_use(self.paths(task_id)):
                machine = self.machines.create(spec.machine, progress=progress, with_caller=False, machine_id=task_id)
                progress.phase("start", task_id=task_id)
                machine = self.machines.start(task_id, progress=progress)
                seed = prepare(record, machine)
                return self.rows.change(
                    task_id,
                    lambda found: replace(
                        found.moved("started"),
                        seed=seed,
                        environment_version=machine.environment_version,
                        execution_mode=machine.execution_mode,
                        isolation=machine.isolation,
                        created_at=machine.created_at,
                        expires_at=machine.expires_at,
                    ),
                    allowed=("creating",),
                )
        except BaseException:
            with contextlib.suppress(PyroError):
                self.remove(task_id)
            raise

    def current(self, wanted: str) -> TaskRecord:
        """The task with that id or name, as it is now. Raises UnknownTask, or StorageFault for a damaged record."""
        return self.look(self.rows.find(wanted))

    @contextlib.contextmanager
    def using(self, wanted: str) -> Iterator[TaskRecord]:
        """A call on a task: it does not count as idle while the block runs."""
        task_id = self.rows.find(wanted).task_id
        with in_use(self.paths(task_id)):
            yield self.look(self.rows.find(task_id))

    def look(self, record: TaskRecord) -> TaskRecord:
        """Bring *record* up to what is true now: its time may be over, its VM may have ended."""
        if record.state not in ("started", "stopped"):
            return record
        if record.over:
            return self.expire(record.task_id, at=record.expires_at)
        if record.state == "stopped":
            return record
        machine = self.machine(record.task_id)
        if machine is None:
            return self._stopped(record, "machine_deleted", "its machine was deleted", time.time())
        if machine.execution_mode == "host_compat" or machine.vmm_alive:
            return record
        end = ending_of(self.context.paths.machine(record.task_id), machine)
        if end.by_ttl:
            return self.expire(record.task_id, at=end.at or time.time())
        return self._stopped(record, "vmm", end.cause, end.at or time.time())

    def machine(self, task_id: str) -> MachineRecord | None:
        """The record of a task's machine; ``None`` when there is none, or only a damaged one."""
        try:
            return self.context.store.get(task_id)
        except (UnknownMachine, StorageFault):
            return None

    def expire(self, task_id: str, *, at: float, idle: int | None = None) -> TaskRecord:
        """End a task whose time is over: its machine goes, its history stays for an hour."""
        why = f"it was idle for {idle} s" if idle is not None else "its time to live was over"
        cause = f"expired at {moment(at)} ({why})"
        record = self.rows.change(
            task_id,
            lambda found: found.ended("expired", "idle" if idle is not None else "ttl", cause, at),
            allowed=("started", "stopped"),
        )
        if record.state == "expired":
            self._delete_machine(task_id)
        return record

    def expire_if_idle(self, record: TaskRecord, busy: Callable[[], bool]) -> bool:
        """Expire a task that nobody has used for its idle time, unless it is *busy*; whether it was expired."""
        paths = self.paths(record.task_id)
        due = self.idle_at(record)
        if due is None or time.time() < due or busy():
            return False
        with if_unused(paths) as unused:
            due = self.idle_at(record)
            if not unused or due is None or time.time() < due or self.rows.running(record.task_id):
                return False
            return self.expire(record.task_id, at=time.time(), idle=record.idle_seconds).state == "expired"

    def idle_at(self, record: TaskRecord) -> float | None:
        """When the task's idle time is over if nobody uses it until then; ``None``: never."""
        if record.idle_seconds is None or record.state != "started":
            return None
        return (last_used(self.paths(record.task_id)) or record.created_at) + record.idle_seconds

    def delete(self, wanted: str) -> str:
        """Remove a task with its machine and its history, in whatever state it is, also a damaged one; its id."""
        try:
            task_id = self.rows.find(wanted).task_id
        except StorageFault:
            if not MACHINE_ID.fullmatch(wanted):
                raise
            task_id = wanted
        self.remove(task_id)
        return task_id

    def remove(self, task_id: str) -> None:
        """Remove all that belongs to a task; the record goes last. May be called again, and by several at once."""
        with contextlib.suppress(StorageFault, UnknownTask):
            self.rows.change(
                task_id,
                lambda found: found.moved("deleting"),
                allowed=("creating", "started", "stopped", "expired", "deleting"),
            )
        with self.changing(task_id):
            self._delete_machine(task_id)
        remove_tree(self.paths(task_id).directory)
        self.rows.remove(task_id)

    @contextlib.contextmanager
    def changing(self, task_id: str) -> Iterator[None]:
        """One change of a task's life at a time. A task without a directory is already being removed."""
        paths = self.paths(task_id)
        if not paths.directory.is_dir():
            yield
            return
        with locked(paths.change_lock, Deadline.after(CHANGE_SECONDS)):
            yield

    def _stopped(self, record: TaskRecord, reason: str, cause: str, at: float) -> TaskRecord:
        if reason == "vmm":
            with contextlib.suppress(PyroError):
                self.machines.living(record.task_id)  # its record says the same from now on
        return self.rows.change(
            record.task_id,
            lambda found: found.ended("stopped", "vmm" if reason == "vmm" else "machine_deleted", cause, at),
            allowed=("started",),
        )

    def _delete_machine(self, task_id: str) -> None:
        with contextlib.suppress(UnknownMachine):
            self.machines.delete(task_id)
        with contextlib.suppress(UnknownTask, StorageFault):  # without a record they end by themselves all the same
            end_publishers(self.rows.find(task_id).published)


def _new_record(spec: TaskSpec) -> TaskRecord:
    now = time.time()
    machine = spec.machine
    return TaskRecord(
        task_id=new_machine_id(),
        state="creating",
        environment=machine.environment,
        environment_version=None,
        vcpu_count=machine.vcpu_count,
        mem_mib=machine.mem_mib,
        disk_mib=machine.disk_mib,
        ttl_seconds=machine.ttl_seconds,
        created_at=now,
        expires_at=now + machine.ttl_seconds,
        allow_host_compat=machine.allow_host_compat,
        network=machine.network,
        actor=ProcessId.current(),
        name=spec.name,
        labels=dict(spec.labels),
        idle_seconds=spec.idle_seconds,
    )
