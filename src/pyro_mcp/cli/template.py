"""``pyro template``: the paused machines that others start from."""

import time

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.cli.options import environment_argument, output_options
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.config.settings import DRIVERS


@click.group("template", cls=Group, short_help="List, build and prune the templates machines start from.")
def command() -> None:
    """List, build and prune the templates machines start from.

    The first machine of a kind boots, is warmed up and paused; every later one goes on from there.

    \b
    Examples:
      pyro template build debian:12
      pyro template list
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("list")
@output_options
def list_templates(*, as_json: bool) -> None:
    """Show every template, the one used last first.

    \b
    Examples:
      pyro template list
      pyro template list --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    records = Pyro().list_templates()
    if as_json:
        render.result({"templates": records})
    else:
        render.lines(map(_line, records) if records else ["No templates. The first run of an environment makes one."])


@command.command("build", short_help="Make the template of an environment.")
@environment_argument
@click.option("--vcpu-count", type=int, default=model.DEFAULT_VCPU_COUNT, show_default=True, help="Virtual CPUs (1-8).")
@click.option(
    "--mem-mib", type=int, default=model.DEFAULT_MEM_MIB, show_default=True, help="Memory in MiB (256-32768)."
)
@click.option("--disk-mib", type=int, default=model.DEFAULT_DISK_MIB, show_default=True, help="Writable disk in MiB.")
@click.option("--driver", type=click.Choice(DRIVERS), default="auto", show_default=True, help="Which VMM.")
@output_options
def build(environment: str, *, as_json: bool, **machine: object) -> None:
    """Make the template of ENV for machines of these sizes, so that their first run is fast, too.

    \b
    Examples:
      pyro template build debian:12
      pyro template build debian:12 --vcpu-count 2 --mem-mib 2048
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pyro = Pyro(progress=TaggedProgress("template"))
    record = pyro.build_template(environment=environment, **machine)  # type: ignore[arg-type]  # the same names
    if as_json:
        render.result(record)
    else:
        render.lines([_line(record)])


@command.command("prune")
@output_options
def prune(*, as_json: bool) -> None:
    """Remove all templates. Running machines are not hurt; the next run of each kind makes its template again.

    \b
    Examples:
      pyro template prune
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pruned = Pyro().prune_templates()
    if as_json:
        render.result(pruned)
    else:
        noun = "template" if pruned["count"] == 1 else "templates"
        render.lines([f"Deleted {pruned['count']} {noun}, {pruned['freed_mib']} MiB."])


def _line(record: model.TemplateRecord) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(record["used_at"]))
    damaged = "" if record["intact"] else ", damaged"
    return (
        f"{record['key'][:12]} {record['environment']} [{record['driver']}] {record['vcpu_count']} vCPU,"
        f" {record['mem_mib']} MiB memory, {record['disk_mib']} MiB disk; takes {record['size_mib']} MiB,"
        f" last used {used}{damaged}"
    )
