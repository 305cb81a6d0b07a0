"""``pyro task wait``: until a job has ended."""

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument
from pyro_mcp.errors import EXIT_FAILURE

STILL_RUNNING = 124


@click.command("wait", short_help="Wait for a job's end.")
@task_argument
@click.argument("job")
@click.option("--timeout-seconds", type=float, default=None, help="Wait at most so long.  [default: without end]")
@output_options
def command(task: str, job: str, timeout_seconds: float | None, *, as_json: bool) -> int:
    """Wait until JOB in TASK has ended.

    The exit code is the job's own; 124: it still runs after --timeout-seconds; 125: nobody knows how it ended.

    \b
    Examples:
      pyro task wait demo 0123456789abcdef
      pyro task wait demo 0123456789abcdef --timeout-seconds 60
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    entry = Pyro().wait_task_job(task, job, timeout_seconds=timeout_seconds)
    if as_json:
        render.result(entry)
    else:
        end = f"exit_code={entry['exit_code']} duration_ms={entry['duration_ms']}" if entry["state"] == "done" else ""
        why = f"reason={entry['reason']}" if entry["state"] == "lost" else ""
        words = (f"[task-wait] task_id={entry['task_id']} job_id={job} state={entry['state']}", end, why)
        render.lines([" ".join(word for word in words if word)])
    if entry["state"] == "running":
        return STILL_RUNNING
    return EXIT_FAILURE if entry["exit_code"] is None else entry["exit_code"]
