"""``pyro task attach``: a job's output, from its beginning to its end."""

import signal

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument


@click.command("attach", short_help="Follow a job's output to its end.")
@task_argument
@click.argument("job")
@output_options
def command(task: str, job: str, *, as_json: bool) -> int:
    """Follow the output of JOB in TASK, from its beginning to its end. Ctrl-C leaves the job as it is.

    The exit code is the job's own; 125: pyro itself failed, or nobody knows how the job ended.

    \b
    Examples:
      pyro task attach demo 0123456789abcdef
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    try:
        result = Pyro().attach_task_job(
            task,
            job,
            on_stdout=None if as_json else lambda data: render.guest_bytes(1, data),
            on_stderr=None if as_json else lambda data: render.guest_bytes(2, data),
        )
    except KeyboardInterrupt:
        render.progress_line(f"[task-attach] left; job {job} goes on")
        return 128 + signal.SIGINT
    if as_json:
        render.result(result)
    else:
        render.command_summary("task-attach", result)
    return result["exit_code"]
