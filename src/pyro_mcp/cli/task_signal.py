"""``pyro task signal``: a signal to a job."""

import signal
from typing import Literal

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument
from pyro_mcp.errors import InvalidRequest


@click.command("signal", short_help="Send a signal to a job.")
@task_argument
@click.argument("job")
@click.argument("number", metavar="[SIGNAL]", default="TERM")
@click.option("--all", "everything", is_flag=True, help="To all processes of the job, not only to its process group.")
@output_options
def command(task: str, job: str, number: str, *, everything: bool, as_json: bool) -> int:
    """Send SIGNAL (a name or a number; TERM) to JOB in TASK. The exit code is 1 when no process got it.

    \b
    Examples:
      pyro task signal demo 0123456789abcdef
      pyro task signal demo 0123456789abcdef KILL --all
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    scope: Literal["group", "all"] = "all" if everything else "group"
    told = Pyro().signal_task_job(task, job, parse_signal(number), scope=scope)
    if as_json:
        render.result(told)
    else:
        delivered = "yes" if told["delivered"] else "no"
        render.lines([f"[task-signal] task_id={told['task_id']} job_id={job} delivered={delivered}"])
    return 0 if told["delivered"] else 1


def parse_signal(text: str) -> int:
    """A signal's number from its name, with or without SIG, or from the number itself; raises InvalidRequest."""
    if text.isascii() and text.isdigit():
        return int(text)
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError as error:
        raise InvalidRequest(f"{text!r:.40} is not a signal", remedy="For instance: TERM, KILL, INT, or 15.") from error
