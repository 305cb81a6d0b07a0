"""Tasks and their commands as users see them."""

import time

from pyro_mcp.engine.outcome import CommandIO
from pyro_mcp.engine.tasks.activity import last_used
from pyro_mcp.engine.tasks.jobs import Done
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.outputs import read_output
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.engine.tasks.results import (
    LastCommand,
    TaskExecResult,
    TaskLogEntry,
    TaskRecordResult,
    TaskUsage,
)
from pyro_mcp.errors import PyroError
from pyro_mcp.guest.client import Agent
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import WORKSPACE, NetworkReport
from pyro_mcp.network.addresses import GUEST, TAP
from pyro_mcp.paths import TaskPaths

USAGE_SECONDS = 3.0
KIB = 1024


def task_view(
    tasks: Tasks, record: TaskRecord, usage: TaskUsage | None = None, network: NetworkReport | None = None
) -> TaskRecordResult:
    """A task with the outline of its history."""
    latest = tasks.rows.entries(record.task_id, last=1)
    return {
        "task_id": record.task_id,
        "name": record.name,
        "labels": record.labels,
        "environment": record.environment,
        "environment_version": record.environment_version,
        "vcpu_count": record.vcpu_count,
        "mem_mib": record.mem_mib,
        "disk_mib": record.disk_mib,
        "ttl_seconds": record.ttl_seconds,
        "idle_seconds": record.idle_seconds,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "last_activity_at": last_used(tasks.paths(record.task_id)) or record.created_at,
        "remaining_seconds": 0 if record.state == "expired" else max(0, round(record.expires_at - time.time())),
        "state": record.state,
        "ended_at": record.ended_at,
        "ended_reason": record.ended_reason,
        "cause": record.cause,
        "network_enabled": record.network is not None,
        "allow_host_compat": record.allow_host_compat,
        "guest_ip": GUEST if record.network else None,
        "tap_name": TAP if record.network else None,
        "execution_mode": record.execution_mode,
        "isolation": record.isolation,
        "workspace_path": WORKSPACE,
        "workspace_seed": record.seed,
        "command_count": tasks.rows.count(record.task_id),
        "running_count": len(tasks.rows.running(record.task_id)),
        "last_command": _last(latest[0]) if latest else None,
        "published_ports": [one.port.public() for one in record.published],
        "usage": usage,
        "network": network,
        "metadata": {},
    }


def usage_of(tasks: Tasks, record: TaskRecord) -> TaskUsage | None:
    """What the task's machine uses; ``None`` when its guest does not answer soon, or there is none."""
    machine = tasks.machine(record.task_id)
    if record.state != "started" or machine is None or machine.running is None:
        return None
    try:
        used = Agent(tasks.machines.channels(machine)).usage(Deadline.after(USAGE_SECONDS))
    except PyroError:
        return None
    return {
        "memory_used_bytes": max(0, used.memory_total_kib - used.memory_available_kib) * KIB,
        "memory_total_bytes": used.memory_total_kib * KIB,
        "disk_used_bytes": max(0, used.disk_total_bytes - used.disk_free_bytes),
        "disk_total_bytes": used.disk_total_bytes,
        "processes": used.processes,
        "oom_kills": used.oom_kills,
    }


def exec_view(done: Done, io: CommandIO) -> TaskExecResult:
    """A command that has ended, with its output as *io* has captured it."""
    task, entry = done.task, done.entry
    out, err = io.captured.stdout, io.captured.stderr
    return {
        "task_id": task.task_id,
        "environment": task.environment,
        "environment_version": task.environment_version,
        "command": entry.command,
        "cwd": entry.cwd,
        "sequence": entry.sequence,
        "job_id": entry.job,
        "stdout": out.text(),
        "stderr": err.text(),
        "stdout_truncated": out.truncated or entry.stdout_truncated,
        "stderr_truncated": err.truncated or entry.stderr_truncated,
        "stdout_bytes": entry.stdout_bytes,
        "stderr_bytes": entry.stderr_bytes,
        "exit_code": 125 if entry.exit_code is None else entry.exit_code,
        "duration_ms": entry.duration_ms or 0,
        "timed_out": entry.timed_out,
        "causes": list(entry.causes),
        "execution_mode": entry.execution_mode,
        "isolation": task.isolation,
    }


def entry_view(paths: TaskPaths, entry: CommandRecord, *, with_output: bool = True) -> TaskLogEntry:
    """An entry of a history. What is not UTF-8 in its output becomes U+FFFD."""
    out, err = paths.stdout(entry.sequence), paths.stderr(entry.sequence)
    view: TaskLogEntry = {
        "sequence": entry.sequence,
        "job_id": entry.job,
        "command": entry.command,
        "cwd": entry.cwd,
        "state": entry.state,
        "detached": entry.detached,
        "exit_code": entry.exit_code,
        "duration_ms": entry.duration_ms,
        "timed_out": entry.timed_out,
        "causes": list(entry.causes),
        "reason": entry.reason,
        "execution_mode": entry.execution_mode,
        "started_at": entry.started_at,
        "recorded_at": entry.recorded_at,
        "stdout_bytes": entry.stdout_bytes,
        "stderr_bytes": entry.stderr_bytes,
        "stdout_truncated": entry.stdout_truncated,
        "stderr_truncated": entry.stderr_truncated,
        "stdout_file": str(out),
        "stderr_file": str(err),
    }
    if with_output:
        view["stdout"] = read_output(out).decode(errors="replace")
        view["stderr"] = read_output(err).decode(errors="replace")
    return view


def _last(entry: CommandRecord) -> LastCommand:
    return {
        "sequence": entry.sequence,
        "job_id": entry.job,
        "command": entry.command,
        "cwd": entry.cwd,
        "state": entry.state,
        "exit_code": entry.exit_code,
        "duration_ms": entry.duration_ms,
        "execution_mode": entry.execution_mode,
    }
