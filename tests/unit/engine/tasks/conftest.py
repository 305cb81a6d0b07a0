"""Tasks without any VMM: their machines are records of the kind that runs on the host."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from pyro_mcp.config import load
from pyro_mcp.engine.machines import Context
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.tasks.lifecycle import Tasks
from pyro_mcp.engine.tasks.records import CommandRecord, TaskRecord
from pyro_mcp.environments.facade import Environments
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import new_machine_id
from pyro_mcp.paths import Paths

DEAD = ProcessId(ProcessId.current().pid, 1)
Make = Callable[..., TaskRecord]


@pytest.fixture
def tasks(paths: Paths) -> Tasks:
    settings = load({})
    return Tasks(Context(paths, settings, Store(paths.database), Environments(paths, settings)))


@pytest.fixture
def make(tasks: Tasks) -> Make:
    """Put a task on record, with its machine and its directories."""

    def made(**changes: object) -> TaskRecord:
        record = task(**changes)
        tasks.rows.insert(record)
        tasks.context.store.insert(machine(record))
        tasks.paths(record.task_id).commands.mkdir(parents=True)
        return record

    return made


def task(**changes: object) -> TaskRecord:
    now = time.time()
    plain = TaskRecord(
        task_id=new_machine_id(),
        state="started",
        environment="debian:12",
        environment_version="1.0.0",
        vcpu_count=1,
        mem_mib=1024,
        disk_mib=4096,
        ttl_seconds=600,
        created_at=now,
        expires_at=now + 600,
        allow_host_compat=True,
        actor=ProcessId.current(),
        execution_mode="host_compat",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # any field


def machine(record: TaskRecord) -> MachineRecord:
    return MachineRecord(
        machine_id=record.task_id,
        state="started",
        environment=record.environment,
        environment_version=record.environment_version,
        vcpu_count=record.vcpu_count,
        mem_mib=record.mem_mib,
        disk_mib=record.disk_mib,
        ttl_seconds=record.ttl_seconds,
        created_at=record.created_at,
        expires_at=record.expires_at,
        allow_host_compat=True,
        driver="none",
        execution_mode=record.execution_mode,
        isolation=NO_ISOLATION,
        owner=None,
        actor=record.actor,
    )


def command(**changes: object) -> CommandRecord:
    plain = CommandRecord(
        job=new_job(),
        command="true",
        cwd="/workspace",
        execution_mode="host_compat",
        started_at=time.time(),
        client=ProcessId.current(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]  # any field
