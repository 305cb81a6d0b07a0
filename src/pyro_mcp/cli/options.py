"""Options that several verbs share."""

import functools
import shlex
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import SectionOption
from pyro_mcp.config import SETTINGS
from pyro_mcp.config.settings import DRIVERS
from pyro_mcp.errors import InvalidRequest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command = Callable[..., Any]


def file_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """Let the shell complete the names of its files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


_network = functools.partial(click.option, cls=SectionOption, section="Network")
_machine = functools.partial(click.option, cls=SectionOption, section="Machine")
_command = functools.partial(click.option, cls=SectionOption, section="Command")
NETWORK_OPTIONS = (
    _network("--network", is_flag=True, help="Let the guest reach the public internet, and nothing else."),
    _network(
        "--allow-host",
        "allow_hosts",
        multiple=True,
        metavar="HOST[:PORT]",
        help="Let the guest reach only this name or IPv4 address, by default its ports 80 and 443; repeatable.",
    ),
    _network(
        "--allow-private",
        multiple=True,
        metavar="CIDR",
        help="Open a private range, such as 192.168.7.0/24; repeatable.",
    ),
    _network(
        "--network-policy",
        default=None,
        metavar="FILE|learn",
        shell_complete=file_names,
        help="Take both lists from a TOML file; learn: put on record what was reached.",
    ),
)


def machine_options(function: Command) -> Command:
    """What a machine is asked to be; the names are the SDK's parameters."""
    driver_help = next(row.help for row in SETTINGS if row.field == "driver")
    options = (
        _machine(
            "--vcpu-count", type=int, default=model.DEFAULT_VCPU_COUNT, show_default=True, help="Virtual CPUs (1-8)."
        ),
        _machine(
            "--mem-mib", type=int, default=model.DEFAULT_MEM_MIB, show_default=True, help="Memory in MiB (256-32768)."
        ),
        _machine(
            "--disk-mib",
            type=int,
            default=model.DEFAULT_DISK_MIB,
            show_default=True,
            help="Writable disk space in MiB; only what is written takes room.",
        ),
        _machine(
            "--ttl-seconds",
            type=int,
            default=model.DEFAULT_TTL_SECONDS,
            show_default=True,
            help="Longest life of the machine (60-604800).",
        ),
        *NETWORK_OPTIONS,
        _machine(
            "--driver",
            type=click.Choice(DRIVERS),
            default="auto",
            show_default=True,
            help=f"{driver_help} [env: PYRO_DRIVER]",
        ),
        _machine(
            "--require-isolation",
            type=click.Choice(model.ISOLATION_LEVELS),
            default="any",
            show_default=True,
            help="Refuse to run with less; hardware: a machine that KVM runs, not software emulation.",
        ),
        _machine("--allow-host-compat", is_flag=True, help="Without any VMM, run on this host itself: no isolation."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def output_options(function: Command) -> Command:
    """What is printed: ``--json`` is for the verb, ``--quiet`` for the module that prints."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
    return as_json(quiet_option(function))


def _be_quiet(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted:
        render.be_quiet(wanted=True)


quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=_be_quiet,
    help="Say nothing on stderr but warnings and errors.",
)


def _environments(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from pyro_mcp.cli.completion import environments

    return environments(incomplete)


def _tasks(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from pyro_mcp.cli.completion import tasks

    return tasks(incomplete)


environment_argument = click.argument("environment", metavar="ENV", shell_complete=_environments)
task_argument = click.argument("task", shell_complete=_tasks)


def parse_env(texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping; raises InvalidRequest."""
    env = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--env {text!r:.60} is not NAME=VALUE", remedy="For instance: --env LANG=C.UTF-8")
        env[name] = value
    return env


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping; raises InvalidRequest."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"--label {text!r:.60} is not KEY=VALUE", remedy="For instance: --label team=core")
        labels[key] = value
    return labels


def command_options(*, home: str) -> Callable[[Command], Command]:
    """How a command is run; the names are the SDK's parameters, but for streams. *home*: the default directory."""

    def decorate(function: Command) -> Command:
        options = (
            _command(
                "--env",
                "-e",
                "variables",
                multiple=True,
                metavar="NAME=VALUE",
                help="Set a variable in the guest; repeatable.",
            ),
            _command(
                "--cwd", "-w", default="", metavar="DIR", help=f"Working directory in the guest. Default: {home}."
            ),
            _command(
                "--user",
                "-u",
                default="",
                metavar="USER[:GROUP]",
                help="User in the guest, by name or number. Default: root.",
            ),
            _command("--stdin", "-i", "with_stdin", is_flag=True, help="Pass standard input to the command."),
            _command("--tty", "-t", is_flag=True, help="Give the command a terminal. Implies --stdin."),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def command_text(words: tuple[str, ...], example: str) -> str:
    """The command to run: one word is for the guest's shell as it is, several are quoted and joined."""
    if not words:
        raise InvalidRequest("command is required after `--`", remedy=f"For instance: {example}")
    return words[0] if len(words) == 1 else shlex.join(words)
