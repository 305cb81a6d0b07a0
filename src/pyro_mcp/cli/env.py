"""``pyro env``: the environments."""

from collections.abc import Iterator

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import json_option
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.model import EnvironmentRecord, PulledEnvironment


@click.group("env", short_help="List, pull, inspect and prune environments.")
def command() -> None:
    """List, pull, inspect and prune environments.

    \b
    Examples:
      pyro env list
      pyro env pull debian:12
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("list")
@json_option
def list_environments(*, as_json: bool) -> None:
    """Show every environment and whether it is installed."""
    from pyro_mcp import __version__
    from pyro_mcp.sdk import Pyro

    records = Pyro().list_environments()
    if as_json:
        render.result({"catalog_version": __version__, "environments": records})
        return
    render.lines([f"Catalog version: {__version__}"])
    render.lines(
        f"{record['name']} [{'installed' if record['installed'] else 'not installed'}] {record['description']}"
        for record in records
    )


@command.command("inspect")
@click.argument("environment", metavar="ENV")
@json_option
def inspect(environment: str, *, as_json: bool) -> None:
    """Show what is known about ENV."""
    from pyro_mcp.sdk import Pyro

    record = Pyro().inspect_environment(environment)
    if as_json:
        render.result(record)
    else:
        render.lines([f"Environment: {record['name']}", *_detail(record)])


@command.command("pull")
@click.argument("environment", metavar="ENV")
@click.option("--template", is_flag=True, help="Also make the template that machines of the default sizes start from.")
@json_option
def pull(environment: str, *, template: bool, as_json: bool) -> None:
    """Install ENV, so that a later run starts at once."""
    from pyro_mcp.sdk import Pyro

    pulled = Pyro(progress=TaggedProgress("pull")).pull_environment(environment, template=template)
    if as_json:
        render.result(pulled)
    else:
        render.lines([f"Pulled: {pulled['name']}", *_detail(pulled, pulled)])


@command.command("prune")
@json_option
def prune(*, as_json: bool) -> None:
    """Remove what no environment of the catalog needs."""
    from pyro_mcp.sdk import Pyro

    pruned = Pyro().prune_environments()
    if as_json:
        render.result(pruned)
        return
    noun = "entry" if pruned["count"] == 1 else "entries"
    render.lines([f"Deleted {pruned['count']} cached environment {noun}."])
    render.lines(f"- {name}" for name in pruned["deleted_environment_dirs"])


def _detail(record: EnvironmentRecord, pulled: PulledEnvironment | None = None) -> Iterator[str]:
    yield f"Version: {record['version']}"
    yield f"Distribution: {record['distribution']} {record['distribution_version']}"
    yield f"Installed: {'yes' if record['installed'] else 'no'}"
    yield f"Cache dir: {record['cache_dir']}"
    yield f"Default packages: {', '.join(record['default_packages'])}"
    yield f"Description: {record['description']}"
    if record["installed"]:
        yield f"Install dir: {record['install_dir']}"
        yield f"Install manifest: {record.get('install_manifest', '')}"
    if pulled is not None:
        yield f"Kernel image: {pulled['kernel_image']}"
        yield f"Rootfs image: {pulled['rootfs_image']}"
    yield f"OCI source: {record['oci_registry']}/{record['oci_repository']}:{record['oci_reference']}"
