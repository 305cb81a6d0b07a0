"""The ``task_*`` tools: persistent machines with a workspace."""

from collections.abc import Mapping
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import ListRoots, Resolve
from mcp_types import CallToolResult, ListRootsResult

from pyro_mcp import model
from pyro_mcp.engine.publish.ports import LOOPBACK
from pyro_mcp.mcp_server import answers, budget, outputs
from pyro_mcp.mcp_server import inputs as i
from pyro_mcp.mcp_server.jobs import Job, Outcome
from pyro_mcp.mcp_server.service import Service
from pyro_mcp.mcp_server.vm_tools import Call, carried, service_of
from pyro_mcp.network.policy import LEARN
from pyro_mcp.sdk import Pyro

LOGS_DEFAULT = 20
ENTRY_CHARS_LEAST = 200


async def client_roots(ctx: Context[Service, Any], source_path: str | None = None) -> ListRootsResult | ListRoots:
    """The client's roots, asked for only when they decide."""
    capabilities = ctx.client_capabilities
    offers = capabilities is not None and capabilities.roots is not None
    if not offers or not service_of(ctx).policy.places.wants_roots(source_path):
        return ListRootsResult(roots=[])
    return ListRoots()


Roots = Annotated[ListRootsResult, Resolve(client_roots)]


async def task_create(  # noqa: PLR0913 - the contract's parameters
    ctx: Call,
    *,
    environment: i.Environment,
    roots: Roots,
    vcpu_count: i.VcpuCount = model.DEFAULT_VCPU_COUNT,
    mem_mib: i.MemMib = model.DEFAULT_MEM_MIB,
    ttl_seconds: i.TtlSeconds = model.DEFAULT_TTL_SECONDS,
    network: i.Network = False,
    allow_host_compat: i.AllowHostCompat = False,
    allow_hosts: i.AllowHosts = None,
    learn_network: i.LearnNetwork = False,
    source_path: i.OptionalSourcePath = None,
    name: i.TaskName = None,
    idempotency_key: i.IdempotencyKey = None,
) -> Annotated[CallToolResult, outputs.TASK]:
    """Make and start a task: a virtual machine with a /workspace that lives on between calls.

    It ends when it is deleted, or when ttl_seconds are over.
    """
    service = service_of(ctx)
    service.check_host_compat(wanted=allow_host_compat)
    source = service.place(source_path, [str(root.uri) for root in roots.roots]) if source_path else None
    request: dict[str, Any] = {
        "environment": environment,
        "vcpu_count": vcpu_count,
        "mem_mib": mem_mib,
        "ttl_seconds": ttl_seconds,
        "network": network,
        "allow_hosts": allow_hosts or (),
        "network_policy": LEARN if learn_network else None,
        "allow_host_compat": allow_host_compat,
        "source_path": source,
        "name": name,
    }
    job = service.start(
        "task_create", lambda job: service.pyro_for(job).create_task(**request), key=idempotency_key, request=request
    )
    await service.attend(ctx, job)
    return answers.of_job(job)


async def task_sync_push(
    ctx: Call,
    *,
    task_id: i.TaskId,
    source_path: i.SourcePath,
    roots: Roots,
    dest: i.Destination = model.WORKSPACE,
    delete: i.Delete = False,
) -> Annotated[CallToolResult, outputs.TASK_SYNC]:
    """Bring a directory or an archive from the host into a task, whole or not at all; only what changed crosses."""
    service = service_of(ctx)
    source = service.place(source_path, [str(root.uri) for root in roots.roots])

    def work(job: Job) -> Outcome:
        return service.pyro_for(job).push_task_sync(task_id, source, dest=dest, delete=delete)

    job = service.start("task_sync_push", work)
    await service.attend(ctx, job)
    return answers.of_job(job)


async def task_exec(  # noqa: PLR0913 - as vm_run
    ctx: Call,
    *,
    task_id: i.TaskId,
    command: i.Command,
    timeout_seconds: i.TimeoutSeconds = model.DEFAULT_TIMEOUT_SECONDS,
    env: i.Variables = None,
    cwd: i.Cwd = "",
    stdin: i.Stdin = None,
    idempotency_key: i.IdempotencyKey = None,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.TASK_EXEC]:
    """Run a command in a task, in /workspace, and wait for its end. For what takes minutes use job_start."""
    service = service_of(ctx)
    run: dict[str, Any] = {"command": command, "timeout_seconds": timeout_seconds, "env": env, "cwd": cwd}

    def work(job: Job) -> Outcome:
        return service.pyro_for(job).exec_task(task_id, **run, **carried(job, stdin))

    request = {"task_id": task_id, **run, "stdin": stdin}
    job = service.start("task_exec", work, key=idempotency_key, request=request, task_id=task_id)
    await service.attend(ctx, job)
    return answers.of_job(job, max_output_chars)


async def task_status(ctx: Call, *, task_id: i.TaskId) -> Annotated[CallToolResult, outputs.TASK_RECORD]:
    """Show the state of a task, its last command, what it uses, and the time it has left."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.status_task(task_id)))


async def task_logs(
    ctx: Call,
    *,
    task_id: i.TaskId,
    last: i.Last = LOGS_DEFAULT,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.TASK_LOGS]:
    """Show the newest commands of a task with their output, oldest first. job_read has the rest of what is cut."""
    logs = await service_of(ctx).short(lambda pyro: pyro.logs_task(task_id, last=last))
    wanted = {
        f"{number} {name}": budget.cost(str(entry.get(name, "")))
        for number, entry in enumerate(logs["entries"])
        for name in budget.STREAMS
    }
    given = budget.shares(wanted, max_output_chars)
    entries = [_entry(entry, number, given) for number, entry in enumerate(logs["entries"])]
    value = budget.bounded({**logs, "entries": entries}, max_output_chars + budget.RECORD_CHARS_MOST)
    value["count"] = len(value["entries"])
    lines = [line for entry in value["entries"] for line in _lines(entry)] or ["no commands yet"]
    text = budget.middle_out("\n".join(lines), max_output_chars + budget.RECORD_CHARS_MOST)
    return answers.result(text, value)


async def task_list(ctx: Call) -> Annotated[CallToolResult, outputs.TASK_LIST]:
    """List the user's tasks, also those that other programs made."""
    return answers.record(await service_of(ctx).short(Pyro.list_tasks))


async def task_publish(
    ctx: Call,
    *,
    task_id: i.TaskId,
    guest_port: i.GuestPort,
    host_port: i.HostPort = 0,
    address: i.PublishAddress = LOOPBACK,
) -> Annotated[CallToolResult, outputs.TASK_PORT]:
    """Let a TCP port of the host lead to a port of a task, until the task ends. It needs no network."""
    service = service_of(ctx)
    port = service.port(address, host_port, guest_port)
    return answers.record(await service.short(lambda pyro: pyro.publish_task(task_id, port.text)))


async def task_unpublish(
    ctx: Call, *, task_id: i.TaskId, host_ports: i.HostPorts = None
) -> Annotated[CallToolResult, outputs.TASK_PORTS]:
    """Stop listening on published ports of a task."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.unpublish_task(task_id, *(host_ports or ()))))


async def task_delete(ctx: Call, *, task_id: i.TaskId) -> Annotated[CallToolResult, outputs.TASK_DELETED]:
    """End a task and remove it, its workspace and its history."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.delete_task(task_id)))


def _entry(entry: Mapping[str, Any], number: int, given: Mapping[str, int]) -> dict[str, Any]:
    shown = dict(entry)
    for name in budget.STREAMS:
        text = str(entry.get(name, ""))
        room = max(given[f"{number} {name}"], ENTRY_CHARS_LEAST)
        note = f"\n... cut: job_read task_id and job_id={entry['job_id']} stream={name} has all ...\n"
        shown[name] = budget.middle_out(text, room, note)
        shown[f"{name}_truncated"] = bool(entry[f"{name}_truncated"]) or shown[name] != text
    return shown


def _lines(entry: Mapping[str, Any]) -> list[str]:
    code = entry["state"] if entry["exit_code"] is None else f"exit_code={entry['exit_code']}"
    head = f"#{entry['sequence']} {code} duration_ms={entry['duration_ms']} job_id={entry['job_id']}"
    streams = [f"{name}: {entry[name]}" for name in budget.STREAMS if entry[name]]
    return [head, f"$ {entry['command']}", *streams]
