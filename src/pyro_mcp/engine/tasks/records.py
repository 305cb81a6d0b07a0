"""The records of tasks and of their commands: written before what they name exists, removed after it is gone."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from pyro_mcp.engine import stored
from pyro_mcp.engine.publish.ports import Port
from pyro_mcp.engine.records import NO_ISOLATION
from pyro_mcp.engine.tasks.results import WorkspaceSeed
from pyro_mcp.errors import HostFault, TaskExpired, WrongState
from pyro_mcp.guest.outcome import JOB
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import WORKSPACE, CommandState, ExecutionMode, Isolation, NetworkPolicy, check_machine_id

State = Literal["creating", "started", "stopped", "expired", "deleting"]
STATES: tuple[str, ...] = get_args(State)
COMMAND_STATES: tuple[str, ...] = get_args(CommandState)
EndReason = Literal["ttl", "idle", "vmm", "machine_deleted"]
PUBLISHER_GRACE = 4.0  # more than it may take to let what is under way arrive
PUBLISHER_SECONDS = 10.0
EMPTY_SEED: WorkspaceSeed = {
    "mode": "empty",
    "source_path": None,
    "destination": WORKSPACE,
    "entry_count": 0,
    "bytes_written": 0,
}


@dataclass(frozen=True, slots=True)
class Publication:
    """A port of this host that leads to a task, and the process that serves it since *since* (Unix seconds)."""

    port: Port
    publisher: ProcessId
    since: float


def end_publishers(publications: Iterable[Publication]) -> None:
    """End those that serve them; each lets what is under way arrive first. Raises HostFault for one that survives."""
    for one in publications:
        if not one.publisher.stop(grace=PUBLISHER_GRACE, deadline=Deadline.after(PUBLISHER_SECONDS)):
            raise HostFault(f"the publisher of {one.port.place} (pid {one.publisher.pid}) does not end")


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One row. Times are Unix seconds, sizes MiB. Its machine has the same id and a record of its own.

    *actor*: the process that is making or deleting the task; when it is dead, so is the change.
    *ended_at*, *ended_reason* and *cause* tell why the task is ``stopped`` or ``expired``.
    """

    task_id: str
    state: State
    environment: str
    environment_version: str | None
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    ttl_seconds: int
    created_at: float
    expires_at: float
    allow_host_compat: bool
    actor: ProcessId
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    idle_seconds: int | None = None
    network: NetworkPolicy | None = None
    execution_mode: ExecutionMode = "pending"
    isolation: Isolation = field(default_factory=lambda: NO_ISOLATION)
    seed: WorkspaceSeed = field(default_factory=lambda: EMPTY_SEED)
    ended_at: float | None = None
    ended_reason: EndReason | None = None
    cause: str | None = None
    publications: tuple[Publication, ...] = ()

    @property
    def published(self) -> tuple[Publication, ...]:
        """Those of its published ports that are served."""
        return tuple(one for one in self.publications if one.publisher.alive)

    @property
    def over(self) -> bool:
        """Whether its time to live is over."""
        return time.time() >= self.expires_at

    @property
    def abandoned(self) -> bool:
        """Whether the process that was making or deleting it is dead."""
        return self.state in ("creating", "deleting") and not self.actor.alive

    def moved(self, state: State, **changes: Any) -> "TaskRecord":  # noqa: ANN401 - any field
        """The record in another state, changed by this process."""
        return replace(self, state=state, actor=ProcessId.current(), **changes)

    def ended(self, state: State, reason: EndReason, cause: str, at: float) -> "TaskRecord":
        """The record of a task that can run nothing any more."""
        return self.moved(state, ended_at=at, ended_reason=reason, cause=cause)

    def require_started(self) -> None:
        """Raise TaskExpired or WrongState unless commands can run in it."""
        if self.state == "expired":
            raise TaskExpired(f"task {self.task_id} {self.cause}")
        if self.state == "stopped":
            raise WrongState(
                f"task {self.task_id} is stopped: {self.cause}",
                remedy=f"Its history can be read (`pyro task logs {self.task_id}`). Delete it and create a new one.",
            )
        if self.state != "started":
            raise WrongState(f"task {self.task_id} is {self.state}")

    def as_json(self) -> dict[str, Any]:
        """The form that is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "TaskRecord":
        """Read a stored record; raises ValueError, KeyError or TypeError for one that is damaged."""
        return cls(**stored.checked(_known(cls, value), TASK_CHECKS))


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One entry of a task's history.

    *client*: the process that carries its streams and completes the entry; ``None`` or dead: whoever looks next does.
    *reason*: why a ``lost`` one is lost. Byte counts are of the whole streams.
    """

    job: str
    command: str
    cwd: str
    execution_mode: ExecutionMode
    started_at: float
    client: ProcessId | None
    detached: bool = False
    sequence: int = 0
    state: CommandState = "running"
    recorded_at: float | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    timed_out: bool = False
    causes: tuple[str, ...] = ()
    reason: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_truncated: bool = False
    stderr_truncated: bool = False

    @property
    def unattended(self) -> bool:
        """Whether it still has to be completed, and no living process will do it."""
        return self.state == "running" and (self.client is None or not self.client.alive)

    def lost(self, reason: str) -> "CommandRecord":
        """The entry of a command of which nobody will ever know the end."""
        return replace(self, state="lost", reason=reason, recorded_at=time.time(), client=None)

    def as_json(self) -> dict[str, Any]:
        """The form that is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "CommandRecord":
        """Read a stored entry; raises ValueError, KeyError or TypeError for one that is damaged."""
        found = stored.checked(_known(cls, value), COMMAND_CHECKS)
        if not JOB.fullmatch(found["job"]):
            raise ValueError("not a command's record")
        return cls(**found)


def moment(at: float) -> str:
    """A point in time for people: ``2026-11-23T18:00:00Z``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _known(cls: type[TaskRecord] | type[CommandRecord], value: dict[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(cls)}
    return {name: content for name, content in dict(value).items() if name in names}


def _publications(value: Iterable[dict[str, Any]]) -> tuple[Publication, ...]:
    return tuple(
        Publication(Port(**one["port"]), stored.process(one["publisher"]), stored.moment(one["since"])) for one in value
    )


def _seed(value: dict[str, Any]) -> WorkspaceSeed:
    return {
        "mode": stored.text(value["mode"]),
        "source_path": stored.maybe(stored.text)(value["source_path"]),
        "destination": stored.text(value["destination"]),
        "entry_count": stored.whole(value["entry_count"]),
        "bytes_written": stored.whole(value["bytes_written"]),
    }


MODE = stored.one_of(*get_args(ExecutionMode))
TASK_CHECKS: dict[str, stored.Check] = {
    "task_id": check_machine_id,
    "state": stored.one_of(*STATES),
    **stored.ASKED_FOR,
    "actor": stored.process,
    "name": stored.maybe(stored.text),
    "labels": stored.named_texts,
    "idle_seconds": stored.maybe(stored.whole),
    "network": stored.maybe(NetworkPolicy.from_json),
    "execution_mode": MODE,
    "isolation": stored.isolation,
    "seed": _seed,
    "ended_at": stored.maybe(stored.moment),
    "ended_reason": stored.maybe(stored.one_of(*get_args(EndReason))),
    "cause": stored.maybe(stored.text),
    "publications": _publications,
}
COMMAND_CHECKS: dict[str, stored.Check] = {
    "job": stored.text,
    "command": stored.text,
    "cwd": stored.text,
    "execution_mode": MODE,
    "started_at": stored.moment,
    "client": stored.maybe(stored.process),
    "detached": stored.flag,
    "sequence": stored.whole,
    "state": stored.one_of(*COMMAND_STATES),
    "recorded_at": stored.maybe(stored.moment),
    "exit_code": stored.maybe(stored.whole),
    "duration_ms": stored.maybe(stored.whole),
    "timed_out": stored.flag,
    "causes": stored.texts,
    "reason": stored.text,
    "stdout_bytes": stored.whole,
    "stderr_bytes": stored.whole,
    "stdout_truncated": stored.flag,
    "stderr_truncated": stored.flag,
}
