"""``pyro run``: one command in a machine of its own."""

import sys
import time
from collections.abc import Iterable

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import SectionedCommand, SectionOption
from pyro_mcp.cli.network import network_lines
from pyro_mcp.cli.options import (
    command_options,
    command_text,
    environment_argument,
    machine_options,
    output_options,
    parse_env,
)
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.cli.signals import forwarded_signals
from pyro_mcp.cli.terminal import raw_terminal
from pyro_mcp.host.stopwatch import listen, since_process_start


@click.command("run", cls=SectionedCommand, short_help="Run a command in a fresh microVM.")
@environment_argument
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
@machine_options
@click.option(
    "--timeout-seconds",
    type=float,
    default=model.DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    help="End the command after this time; exit code 124.",
)
@command_options(home="the user's home")
@click.option(
    "--publish",
    "-p",
    cls=SectionOption,
    section="Network",
    multiple=True,
    metavar="[ADDR:]HOSTPORT:GUESTPORT",
    help="A TCP port of this host that leads to one of the guest, on 127.0.0.1 unless ADDR says otherwise; host port 0:"
    " a free one, told on stderr before the command starts, also with --quiet. Repeatable; needs no network.",
)
@click.option("--timings", is_flag=True, help="Say on stderr where the time went, in milliseconds.")
@output_options
def command(  # noqa: PLR0913 - one per option
    environment: str,
    words: tuple[str, ...],
    timeout_seconds: float,
    variables: tuple[str, ...],
    cwd: str,
    user: str,
    publish: tuple[str, ...],
    *,
    with_stdin: bool,
    tty: bool,
    timings: bool,
    as_json: bool,
    **machine: object,
) -> int:
    """Run COMMAND in a fresh microVM of ENV, and remove it afterwards.

    ENV is one of the catalog (pyro env list), or any image, named with its registry. Without COMMAND an image runs
    what it is made for.

    One word is handed to the guest's shell as it is; several words are quoted and joined.
    The exit code is the command's own; 124: timeout; 125: pyro itself failed.

    \b
    Examples:
      pyro run debian:12 -- git --version
      pyro run debian:12 -- 'uname -r; id'
      tar c . | pyro run -i debian:12 -- 'tar x && ls'
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    began = time.monotonic()
    interpreter = since_process_start()
    from pyro_mcp.sdk import Pyro

    imports = time.monotonic() - began
    text = command_text(words, f"pyro run {environment} -- git --version") if words else None
    progress = TaggedProgress("run", needed=("publish",) if _takes_any_port(publish) else ())
    with listen() as stages, raw_terminal(wanted=tty) as terminal, forwarded_signals(terminal) as signals:
        result = Pyro(progress=progress).run_in_vm(
            environment=environment,
            command=text,
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
            publish=publish,
            **machine,  # type: ignore[arg-type]  # click's options are named as the parameters are
        )
    if as_json:
        render.result(result)
    else:
        _summary(result)
    if timings:
        _timings({"interpreter": interpreter, "imports": imports, **stages}, time.monotonic() - began + interpreter)
    return result["exit_code"]


def _takes_any_port(publish: Iterable[str]) -> bool:
    """Whether a port of the host is any that is free: 0. Nobody but us can tell which it is."""
    return any(text.rpartition(":")[0].rpartition(":")[2].strip("0") == "" for text in publish)


def _timings(stages: dict[str, float], total: float) -> None:
    """Where the time went. What was loaded before the options were read counts as the interpreter's."""
    words = [f"{name}={seconds * 1000:.0f}" for name, seconds in stages.items()]
    rest = total - sum(stages.values())
    render.progress_line(f"[run] timings_ms {' '.join(words)} other={rest * 1000:.0f} total={total * 1000:.0f}")


def _summary(result: model.RunResult) -> None:
    """The closing line, and before it the causes of an unhappy end."""
    if result["execution_mode"] == "host_compat":
        render.warning_line("[run] warning: this ran on the host itself, without isolation (--allow-host-compat)")
    if result["start_error"]:
        render.error_line(f"the command could not be started: {result['start_error']}")
    for line in network_lines(result["network"]):
        render.progress_line(f"[run] {line}")
    causes = f" causes={','.join(result['causes'])}" if result["causes"] else ""
    render.progress_line(
        f"[run] environment={result['environment']} execution_mode={result['execution_mode']}"
        f" exit_code={result['exit_code']} duration_ms={result['duration_ms']}{causes}"
    )
