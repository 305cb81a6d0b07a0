"""``pyro run``: one command in a machine of its own."""

import shlex
import sys

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.options import json_option, machine_options, parse_env
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.cli.signals import forwarded_signals
from pyro_mcp.cli.terminal import raw_terminal
from pyro_mcp.errors import InvalidRequest


@click.command("run", short_help="Run a command in a fresh microVM.")
@click.argument("environment", metavar="ENV")
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
@machine_options
@click.option(
    "--timeout-seconds",
    type=float,
    default=model.DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    help="End the command after this time; exit code 124.",
)
@click.option(
    "--env", "-e", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable in the guest; repeatable."
)
@click.option(
    "--cwd", "-w", default="", metavar="DIR", help="Working directory in the guest. Default: the user's home."
)
@click.option(
    "--user", "-u", default="", metavar="USER[:GROUP]", help="User in the guest, by name or number. Default: root."
)
@click.option("--stdin", "-i", "with_stdin", is_flag=True, help="Pass standard input to the command.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal. Implies --stdin.")
@json_option
def command(  # noqa: PLR0913 - one per option
    environment: str,
    words: tuple[str, ...],
    timeout_seconds: float,
    variables: tuple[str, ...],
    cwd: str,
    user: str,
    *,
    with_stdin: bool,
    tty: bool,
    as_json: bool,
    **machine: object,
) -> int:
    """Run COMMAND in a fresh microVM of ENV, and remove it afterwards.

    One word is handed to the guest's shell as it is; several words are quoted and joined.
    The exit code is the command's own; 124: timeout; 125: pyro itself failed.

    \b
    Examples:
      pyro run debian:12 -- git --version
      pyro run debian:12 -- 'uname -r; id'
      tar c . | pyro run -i debian:12 -- 'tar x && ls'
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    if not words:
        raise InvalidRequest(
            "command is required after `--`", remedy=f"For instance: pyro run {environment} -- git --version"
        )
    progress = TaggedProgress("run")
    with raw_terminal(wanted=tty) as terminal, forwarded_signals(terminal) as signals:
        result = Pyro(progress=progress).run_in_vm(
            environment=environment,
            command=words[0] if len(words) == 1 else shlex.join(words),
            timeout_seconds=timeout_seconds,
            env=parse_env(variables),
            cwd=cwd,
            user=user,
            terminal=terminal,
            stdin=sys.stdin.fileno() if with_stdin or tty else None,
            on_stdout=None if as_json else lambda data: render.guest_bytes(1, data),
            on_stderr=None if as_json else lambda data: render.guest_bytes(2, data),
            on_started=signals.started,
            control=signals.control,
            **machine,  # type: ignore[arg-type]  # click's options are named as the parameters are
        )
    if as_json:
        render.result(result)
    else:
        _summary(result)
    return result["exit_code"]


def _summary(result: model.RunResult) -> None:
    """The closing line, and before it the causes of an unhappy end."""
    if result["execution_mode"] == "host_compat":
        render.progress_line("[run] warning: this ran on the host itself, without isolation (--allow-host-compat)")
    if result["start_error"]:
        render.error_line(f"the command could not be started: {result['start_error']}")
    causes = f" causes={','.join(result['causes'])}" if result["causes"] else ""
    render.progress_line(
        f"[run] environment={result['environment']} execution_mode={result['execution_mode']}"
        f" exit_code={result['exit_code']} duration_ms={result['duration_ms']}{causes}"
    )
