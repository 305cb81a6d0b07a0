"""Options that several verbs share."""

from collections.abc import Callable, Iterable
from typing import Any

import click

from pyro_mcp import model
from pyro_mcp.config import SETTINGS
from pyro_mcp.config.settings import DRIVERS
from pyro_mcp.errors import InvalidRequest

Command = Callable[..., Any]


def machine_options(function: Command) -> Command:
    """What a machine is asked to be; the names are the SDK's parameters."""
    driver_help = next(row.help for row in SETTINGS if row.field == "driver")
    options = (
        click.option(
            "--vcpu-count", type=int, default=model.DEFAULT_VCPU_COUNT, show_default=True, help="Virtual CPUs (1-8)."
        ),
        click.option(
            "--mem-mib", type=int, default=model.DEFAULT_MEM_MIB, show_default=True, help="Memory in MiB (256-32768)."
        ),
        click.option(
            "--disk-mib",
            type=int,
            default=model.DEFAULT_DISK_MIB,
            show_default=True,
            help="Writable disk space in MiB; only what is written takes room.",
        ),
        click.option(
            "--ttl-seconds",
            type=int,
            default=model.DEFAULT_TTL_SECONDS,
            show_default=True,
            help="Longest life of the machine (60-604800).",
        ),
        click.option("--network", is_flag=True, help="Outbound network. Not in this version: refused."),
        click.option(
            "--driver",
            type=click.Choice(DRIVERS),
            default="auto",
            show_default=True,
            help=f"{driver_help} [env: PYRO_DRIVER]",
        ),
        click.option(
            "--require-isolation",
            type=click.Choice(model.ISOLATION_LEVELS),
            default="any",
            show_default=True,
            help="Refuse to run with less; hardware: a machine that KVM runs, not software emulation.",
        ),
        click.option(
            "--allow-host-compat", is_flag=True, help="Without any VMM, run on this host itself: no isolation."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def parse_env(texts: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as a mapping; raises InvalidRequest."""
    env = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--env {text!r:.60} is not NAME=VALUE", remedy="For instance: --env LANG=C.UTF-8")
        env[name] = value
    return env
