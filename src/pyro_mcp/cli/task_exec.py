"""``pyro task exec``: a command in a task."""

import sys

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import SectionedCommand
from pyro_mcp.cli.options import command_options, command_text, output_options, parse_env, task_argument
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.cli.signals import forwarded_signals
from pyro_mcp.cli.terminal import raw_terminal
from pyro_mcp.errors import InvalidRequest


@click.command("exec", cls=SectionedCommand, short_help="Run a command in a task.")
@task_argument
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--timeout-seconds",
    type=float,
    default=None,
    help=f"End the command after this time; exit code 124.  [default: {model.DEFAULT_TIMEOUT_SECONDS}; detached: none]",
)
@command_options(home="/workspace")
@click.option("--detach", "-d", is_flag=True, help="Start it and print its job id; see attach, signal and wait.")
@output_options
def command(  # noqa: PLR0913 - one per option
    task: str,
    words: tuple[str, ...],
    timeout_seconds: float | None,
    variables: tuple[str, ...],
    cwd: str,
    user: str,
    *,
    with_stdin: bool,
    tty: bool,
    detach: bool,
    as_json: bool,
) -> int:
    """Run COMMAND in TASK. Any number may run at once.

    One word is handed to the guest's shell as it is; several words are quoted and joined.
    The exit code is the command's own; 124: timeout; 125: pyro itself failed.
    If pyro is killed, the command goes on, and its end is recorded.

    \b
    Examples:
      pyro task exec demo -- make test
      pyro task exec demo --detach -- 'sleep 60; echo done'
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    text = command_text(words, f"pyro task exec {task} -- git status")
    if detach and (with_stdin or tty):
        raise InvalidRequest("--detach goes with neither --stdin nor --tty")
    env = parse_env(variables)
    if detach:
        return _detached(task, text, timeout_seconds, env, cwd, user, as_json=as_json)
    from pyro_mcp.sdk import Pyro

    with raw_terminal(wanted=tty) as terminal, forwarded_signals(terminal) as signals:
        result = Pyro(progress=TaggedProgress("task-exec")).exec_task(
            task,
            command=text,
            timeout_seconds=model.DEFAULT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
            env=env,
            cwd=cwd,
            user=user,
            terminal=terminal,
            stdin=sys.stdin.fileno() if with_stdin or tty else None,
            on_stdout=None if as_json else lambda data: render.guest_bytes(1, data),
            on_stderr=None if as_json else lambda data: render.guest_bytes(2, data),
            on_started=signals.started,
            control=signals.control,
        )
    if as_json:
        render.result(result)
    else:
        render.command_summary("task-exec", result)
    return result["exit_code"]


def _detached(
    task: str, text: str, timeout_seconds: float | None, env: dict[str, str], cwd: str, user: str, *, as_json: bool
) -> int:
    from pyro_mcp.sdk import Pyro

    job = Pyro().start_task_job(task, command=text, timeout_seconds=timeout_seconds, env=env, cwd=cwd, user=user)
    if as_json:
        render.result(job)
    else:
        render.lines([job["job_id"]])
        render.progress_line(
            f"[task-exec] task_id={job['task_id']} sequence={job['sequence']} cwd={job['cwd']}"
            f" execution_mode={job['execution_mode']} job_id={job['job_id']} state=running"
        )
    return 0
