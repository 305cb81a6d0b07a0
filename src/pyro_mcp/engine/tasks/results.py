"""What the task methods of the SDK return, the CLI prints with ``--json`` and the MCP server sends."""

from typing import NotRequired, TypedDict

from pyro_mcp.model import CommandState, ExecutionMode, Isolation, NetworkReport, PublishedPort, TaskState


class WorkspaceSeed(TypedDict):
    """What ``/workspace`` was filled with when the task was made. *mode*: ``empty``, ``directory``, ``tar_archive``."""

    mode: str
    source_path: str | None
    destination: str
    entry_count: int
    bytes_written: int


class LastCommand(TypedDict):
    """The newest command of a task."""

    sequence: int
    job_id: str
    command: str
    cwd: str
    state: CommandState
    exit_code: int | None
    duration_ms: int | None
    execution_mode: ExecutionMode


class TaskUsage(TypedDict):
    """What a task's machine uses, in bytes."""

    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    processes: int
    oom_kills: int


class TaskRecordResult(TypedDict):
    """A task as its users see it. Times are Unix seconds.

    *ended_at* and *ended_reason* (``ttl``, ``idle``, ``vmm``, ``machine_deleted``) with its *cause* in words say why a
    task is not ``started`` any more. *usage* and *network* are there only in a status;
    usage only when the guest answered.
    """

    task_id: str
    name: str | None
    labels: dict[str, str]
    environment: str
    environment_version: str | None
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    ttl_seconds: int
    idle_seconds: int | None
    created_at: float
    expires_at: float
    last_activity_at: float
    remaining_seconds: int
    state: TaskState
    ended_at: float | None
    ended_reason: str | None
    cause: str | None
    network_enabled: bool
    allow_host_compat: bool
    guest_ip: str | None
    tap_name: str | None
    execution_mode: ExecutionMode
    isolation: Isolation
    workspace_path: str
    workspace_seed: WorkspaceSeed
    command_count: int
    running_count: int
    last_command: LastCommand | None
    published_ports: list[PublishedPort]
    usage: TaskUsage | None
    network: NetworkReport | None
    metadata: dict[str, str]


class TaskList(TypedDict):
    """All tasks; *damaged* are the ids of those whose record cannot be read."""

    count: int
    tasks: list[TaskRecordResult]
    damaged: list[str]


class TaskExecResult(TypedDict):
    """One command in a task. *stdout* and *stderr* as in ``RunResult``."""

    task_id: str
    environment: str
    environment_version: str | None
    command: str
    cwd: str
    sequence: int
    job_id: str
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    stdout_bytes: int
    stderr_bytes: int
    exit_code: int
    duration_ms: int
    timed_out: bool
    causes: list[str]
    execution_mode: ExecutionMode
    isolation: Isolation


class TaskLogEntry(TypedDict):
    """One command of a task's history. *exit_code* is ``None`` while it runs, and when it is ``lost``."""

    sequence: int
    job_id: str
    command: str
    cwd: str
    state: CommandState
    detached: bool
    exit_code: int | None
    duration_ms: int | None
    timed_out: bool
    causes: list[str]
    reason: str
    execution_mode: ExecutionMode
    started_at: float
    recorded_at: float | None
    stdout_bytes: int
    stderr_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    stdout_file: str
    stderr_file: str
    stdout: NotRequired[str]
    stderr: NotRequired[str]


class TaskLogs(TypedDict):
    """A task's history, oldest first."""

    task_id: str
    state: TaskState
    cause: str | None
    count: int
    entries: list[TaskLogEntry]


class TaskPort(PublishedPort):
    """A port of a task that was just published."""

    task_id: str


class TaskPorts(TypedDict):
    """The ports of a task that were taken back, and those that are left."""

    task_id: str
    unpublished_ports: list[PublishedPort]
    published_ports: list[PublishedPort]


class DeletedTask(TypedDict):
    """The answer to a deletion."""

    task_id: str
    deleted: bool
    reason: str


class JobSignalled(TypedDict):
    """The answer to a signal; *delivered*: a process of the job got it."""

    task_id: str
    job_id: str
    signal: int
    delivered: bool
