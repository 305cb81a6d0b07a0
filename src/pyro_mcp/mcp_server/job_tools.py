"""The ``job_*`` tools: commands that take longer than a call may, and calls that turned out to."""

from typing import Annotated, Any

from mcp_types import CallToolResult

from pyro_mcp.mcp_server import answers, budget, outputs
from pyro_mcp.mcp_server import inputs as i
from pyro_mcp.mcp_server.jobs import Job, Outcome
from pyro_mcp.mcp_server.vm_tools import Call, service_of

WAIT_DEFAULT = 30.0


async def job_start(
    ctx: Call,
    *,
    task_id: i.TaskId,
    command: i.Command,
    timeout_seconds: i.JobTimeoutSeconds = None,
    env: i.Variables = None,
    cwd: i.Cwd = "",
    idempotency_key: i.IdempotencyKey = None,
) -> Annotated[CallToolResult, outputs.JOB_STARTED]:
    """Start a long command in a task and return at once. It goes on in the task even when this server ends.

    Then job_wait for its result, job_read for its output so far, job_cancel to end it.
    """
    service = service_of(ctx)
    run: dict[str, Any] = {"command": command, "timeout_seconds": timeout_seconds, "env": env, "cwd": cwd}

    def work(job: Job) -> Outcome:
        return service.pyro_for(job).start_task_job(task_id, **run)

    request = {"task_id": task_id, **run}
    start = service.start("job_start", work, key=idempotency_key, request=request, task_id=task_id)
    await service.attend(ctx, start)
    if start.outcome is None:
        return answers.of_job(start)  # the guest is slow to answer, or it failed
    entry = start.outcome
    job = service.jobs.find(entry["job_id"]) or service.follow(entry["task_id"], entry["job_id"])
    fitted = budget.bounded(entry)
    step = f"Call job_wait with job_id={job.id} for its result, job_read for its output so far, job_cancel to end it."
    value: dict[str, Any] = {**fitted, "status": job.state, "job_id": job.id, "next_step": step}
    return answers.result(f"job_id={job.id} task_id={entry['task_id']} sequence={entry['sequence']}. {step}", value)


async def job_read(
    ctx: Call,
    *,
    job_id: i.JobId,
    task_id: i.OptionalTaskId = None,
    stream: i.Stream = "stdout",
    cursor: i.Cursor = 0,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.JOB_OUTPUT]:
    """Read output of a job from a cursor, while it runs or after its end."""
    job = await service_of(ctx).find(job_id, task_id)
    state = job.state
    spool = job.spools[stream]
    start, text, end = budget.page(spool, cursor, max_output_chars)
    asked = cursor if cursor >= 0 else start
    at_end = end >= spool.total
    value: dict[str, Any] = {
        "job_id": job_id,
        "status": state,
        "stream": stream,
        "cursor": start,
        "next_cursor": end,
        "total_bytes": spool.total,
        "skipped_bytes": max(0, start - asked),
        "at_end": at_end,
        "text": text,
    }
    more = "nothing more now" if at_end else f"next_cursor={end}"
    return answers.result(f"[{stream} bytes {start}-{end} of {spool.total}, {state}, {more}]\n{text}", value)


async def job_wait(
    ctx: Call,
    *,
    job_id: i.JobId,
    task_id: i.OptionalTaskId = None,
    timeout_seconds: i.WaitSeconds = WAIT_DEFAULT,
    max_output_chars: i.MaxOutputChars = i.OUTPUT_DEFAULT,
) -> Annotated[CallToolResult, outputs.JOB_RESULT]:
    """Wait for the end of a job: its result, or, when that takes longer, how far it is."""
    service = service_of(ctx)
    job = await service.find(job_id, task_id)
    job.waiting += 1
    try:
        await service.watch(ctx, job, min(timeout_seconds, service.policy.call_seconds))
    finally:
        job.waiting -= 1
    return answers.of_job(job, max_output_chars)


async def job_cancel(
    ctx: Call, *, job_id: i.JobId, task_id: i.OptionalTaskId = None
) -> Annotated[CallToolResult, outputs.JOB_CANCELLED]:
    """End a job: its processes get SIGTERM, and SIGKILL some seconds later. One that has ended stays as it is."""
    service = service_of(ctx)
    job = await service.find(job_id, task_id)
    await service.cancel(job)
    value: dict[str, Any] = {"job_id": job_id, "status": job.state}
    if job.outcome is not None and isinstance(job.outcome.get("exit_code"), int):
        value["exit_code"] = job.outcome["exit_code"]
    return answers.record(value)
