"""The ``vm_*`` tools: machines for one command, and the steps of their lives."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult

from pyro_mcp import model
from pyro_mcp.mcp_server import answers, outputs
from pyro_mcp.mcp_server import inputs as i
from pyro_mcp.mcp_server.jobs import Job, Outcome
from pyro_mcp.mcp_server.service import Service
from pyro_mcp.network.policy import LEARN
from pyro_mcp.sdk import Pyro

Call = Context[Service, Any]


def service_of(ctx: Call) -> Service:
    """The server this call came to."""
    return ctx.request_context.lifespan_context


async def vm_run(  # noqa: PLR0913 - the contract's parameters
    ctx: Call,
    *,
    environment: i.Environment,
    command: i.Command,
    vcpu_count: i.VcpuCount = model.DEFAULT_VCPU_COUNT,
    mem_mib: i.MemMib = model.DEFAULT_MEM_MIB,
    timeout_seconds: i.TimeoutSeconds = model.DEFAULT_TIMEOUT_SECONDS,
    ttl_seconds: i.TtlSeconds = model.DEFAULT_TTL_SECONDS,
    network: i.Network = False,
    allow_host_compat: i.AllowHostCompat = False,
    allow_hosts: i.AllowHosts = None,
    learn_network: i.LearnNetwork = False,
    env: i.Variables = None,
    cwd: i.Cwd = "",
    stdin: i.Stdin = None,
    idempotency_key: i.IdempotencyKey = None,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.RUN]:
    """Run one command in a fresh virtual machine and delete the machine afterwards.

    Nothing of the host is inside, nothing is kept. For several commands on the same files use task_create.
    """
    service = service_of(ctx)
    machine = _machine(
        service,
        environment=environment,
        vcpu_count=vcpu_count,
        mem_mib=mem_mib,
        ttl_seconds=ttl_seconds,
        network=network,
        allow_hosts=allow_hosts or (),
        network_policy=LEARN if learn_network else None,
        allow_host_compat=allow_host_compat,
    )
    run: dict[str, Any] = {"command": command, "timeout_seconds": timeout_seconds, "env": env, "cwd": cwd}

    def work(job: Job) -> Outcome:
        return service.pyro_for(job).run_in_vm(**machine, **run, **carried(job, stdin))

    job = service.start("vm_run", work, key=idempotency_key, request={**machine, **run, "stdin": stdin})
    await service.attend(ctx, job)
    return answers.of_job(job, max_output_chars)


async def vm_list_environments(ctx: Call) -> Annotated[CallToolResult, outputs.ENVIRONMENTS]:
    """List the environments (Linux root filesystems). One that is not installed is installed on its first use."""
    found = await service_of(ctx).short(Pyro.list_environments)
    shown = answers.record({"result": found})
    lines = [
        f"{one['name']} [{'installed' if one['installed'] else 'not installed'}] {one['description']}" for one in found
    ]
    return answers.result("\n".join(lines), shown.structured_content or {})


async def vm_create(  # noqa: PLR0913 - as vm_run
    ctx: Call,
    *,
    environment: i.Environment,
    vcpu_count: i.VcpuCount = model.DEFAULT_VCPU_COUNT,
    mem_mib: i.MemMib = model.DEFAULT_MEM_MIB,
    ttl_seconds: i.TtlSeconds = model.DEFAULT_TTL_SECONDS,
    network: i.Network = False,
    allow_host_compat: i.AllowHostCompat = False,
    allow_hosts: i.AllowHosts = None,
    learn_network: i.LearnNetwork = False,
    idempotency_key: i.IdempotencyKey = None,
) -> Annotated[CallToolResult, outputs.VM]:
    """Put a machine on record without starting it. Then vm_start, vm_exec. It is deleted when this server ends."""
    service = service_of(ctx)
    machine = _machine(
        service,
        environment=environment,
        vcpu_count=vcpu_count,
        mem_mib=mem_mib,
        ttl_seconds=ttl_seconds,
        network=network,
        allow_hosts=allow_hosts or (),
        network_policy=LEARN if learn_network else None,
        allow_host_compat=allow_host_compat,
    )

    def work(job: Job) -> Outcome:
        pyro = service.pyro_for(job)
        pyro.reap_expired()
        made = pyro.create_vm(**machine)
        service.adopt(made["vm_id"])
        return made

    job = service.start("vm_create", work, key=idempotency_key, request=machine)
    await service.attend(ctx, job)
    return answers.of_job(job)


async def vm_start(ctx: Call, *, vm_id: i.VmId) -> Annotated[CallToolResult, outputs.VM]:
    """Start a created or stopped machine: afterwards it takes a command."""
    service = service_of(ctx)
    job = service.start("vm_start", lambda job: service.pyro_for(job).start_vm(vm_id))
    await service.attend(ctx, job)
    return answers.of_job(job)


async def vm_exec(  # noqa: PLR0913 - as vm_run
    ctx: Call,
    *,
    vm_id: i.VmId,
    command: i.Command,
    timeout_seconds: i.TimeoutSeconds = model.DEFAULT_TIMEOUT_SECONDS,
    env: i.Variables = None,
    cwd: i.Cwd = "",
    stdin: i.Stdin = None,
    idempotency_key: i.IdempotencyKey = None,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.RUN]:
    """Run one command in a started machine; the machine is deleted afterwards."""
    service = service_of(ctx)
    run: dict[str, Any] = {"command": command, "timeout_seconds": timeout_seconds, "env": env, "cwd": cwd}

    def work(job: Job) -> Outcome:
        return service.pyro_for(job).exec_vm(vm_id, **run, **carried(job, stdin))

    job = service.start("vm_exec", work, key=idempotency_key, request={"vm_id": vm_id, **run, "stdin": stdin})
    await service.attend(ctx, job)
    return answers.of_job(job, max_output_chars)


async def vm_stop(ctx: Call, *, vm_id: i.VmId) -> Annotated[CallToolResult, outputs.VM_RECORD]:
    """Switch a started machine off. Its disk is kept; vm_start starts it again."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.stop_vm(vm_id)))


async def vm_delete(ctx: Call, *, vm_id: i.VmId) -> Annotated[CallToolResult, outputs.VM_DELETED]:
    """End a machine and remove its files."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.delete_vm(vm_id)))


async def vm_status(ctx: Call, *, vm_id: i.VmId) -> Annotated[CallToolResult, outputs.VM_RECORD]:
    """Show the state, the sizes and the remaining life of a machine."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.status_vm(vm_id)))


async def vm_network_info(ctx: Call, *, vm_id: i.VmId) -> Annotated[CallToolResult, outputs.NETWORK_INFO]:
    """Show the network of a machine, and what it was denied."""
    return answers.record(await service_of(ctx).short(lambda pyro: pyro.network_info_vm(vm_id)))


async def vm_reap_expired(ctx: Call) -> Annotated[CallToolResult, outputs.VMS_REAPED]:
    """Delete the machines whose time to live is over. They end by themselves; this removes what is left of them."""
    return answers.record(await service_of(ctx).short(Pyro.reap_expired))


def carried(job: Job, stdin: str | None) -> dict[str, Any]:
    """What connects a command with its job."""
    return {
        "stdin": None if stdin is None else stdin.encode(errors="surrogatepass"),
        "on_stdout": job.on_stdout,
        "on_stderr": job.on_stderr,
        "on_started": job.on_started,
        "control": job.control,
    }


def _machine(service: Service, **asked: Any) -> dict[str, Any]:  # noqa: ANN401 - the SDK's parameters
    """What a machine is asked to be, if the operator allows it."""
    service.check_host_compat(wanted=asked["allow_host_compat"])
    return asked
