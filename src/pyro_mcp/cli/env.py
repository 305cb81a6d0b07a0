"""``pyro env``: the environments."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.cli.options import environment_argument, output_options
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.model import EnvironmentRecord, PulledEnvironment

AGE = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhdw])")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _age(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """``30d`` in seconds."""
    if text is None:
        return None
    found = AGE.fullmatch(text)
    if found is None:
        raise click.BadParameter("an age is a number and s, m, h, d or w, for instance 30d")
    return float(int(found["count"]) * UNITS[found["unit"]])


@click.group("env", cls=Group, short_help="List, pull, inspect, publish and prune environments.")
def command() -> None:
    """List, pull, inspect, publish and prune environments.

    ENV is one of the catalog, an image named with its registry, or the name of an import.

    \b
    Examples:
      pyro env list
      pyro env pull debian:12
      pyro env pull docker.io/library/python:3.12-slim
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("list", short_help="Show every environment.")
@output_options
def list_environments(*, as_json: bool) -> None:
    """Show every environment of the catalog and every import, and whether it is installed.

    \b
    Examples:
      pyro env list
      pyro env list --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
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


@command.command("inspect", short_help="Show what is known about an environment.")
@environment_argument
@output_options
def inspect(environment: str, *, as_json: bool) -> None:
    """Show what is known about ENV: its version, its packages, where it is and what it was made from.

    \b
    Examples:
      pyro env inspect debian:12
      pyro env inspect debian:12-build --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    record = Pyro().inspect_environment(environment)
    if as_json:
        render.result(record)
    else:
        render.lines([f"Environment: {record['name']}", *_detail(record)])


@command.command("pull", short_help="Install an environment, or fetch it anew.")
@environment_argument
@click.option("--template", is_flag=True, help="Also make the template that machines of the default sizes start from.")
@click.option("--update", is_flag=True, help="Take what its tag stands for today, and pin the tag to that.")
@output_options
def pull(environment: str, *, template: bool, update: bool, as_json: bool) -> None:
    """Install ENV, so that a later run starts at once.

    The first pull of a tag pins it to a digest (pyro env pins shows it); later ones get the same image.

    \b
    Examples:
      pyro env pull debian:12 --template
      pyro env pull docker.io/library/alpine:3 --update
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pyro = Pyro(progress=TaggedProgress("pull"))
    _show_pulled(pyro.pull_environment(environment, template=template, update=update), "Pulled", as_json=as_json)


@command.command("import", short_help="Install an image from a file.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What to call it, for instance mine:1.")
@output_options
def import_image(path: Path, *, name: str, as_json: bool) -> None:
    """Install an image from PATH: an OCI layout or archive, what docker save wrote, or the tar of a root filesystem.

    \b
    Examples:
      docker save mine:1 > mine.tar && pyro env import mine.tar --name mine:1
      pyro env import layout:v1 --name mine:1
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pulled = Pyro(progress=TaggedProgress("import")).import_environment(path, name=name)
    _show_pulled(pulled, "Imported", as_json=as_json)


@command.command("export", short_help="Write an environment to a file or directory.")
@environment_argument
@click.argument("path", type=click.Path(path_type=Path))
@output_options
def export(environment: str, path: Path, *, as_json: bool) -> None:
    """Write installed ENV and its kernel to PATH as an OCI layout: a directory, or an archive if PATH ends in .tar.

    `pyro env import` takes it on another host, and `pyro env publish` puts it into a registry.

    \b
    Examples:
      pyro env export debian:12 layout
      pyro env export debian:12 debian.tar
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    done = Pyro(progress=TaggedProgress("export")).export_environment(environment, path)
    if as_json:
        render.result(done)
    else:
        render.lines([f"Exported: {done['name']}", f"Path: {done['path']}", f"Digest: {done['digest']}"])


@command.command("publish", short_help="Put an exported environment into a registry.")
@click.argument("layout", type=click.Path(path_type=Path))
@click.argument("target")
@output_options
def publish(layout: Path, target: str, *, as_json: bool) -> None:
    """Put LAYOUT, a directory that `pyro env export` made, into a registry as TARGET. It can be repeated.

    The login is OCI_REGISTRY_USERNAME and OCI_REGISTRY_PASSWORD, or what docker has stored.

    \b
    Examples:
      pyro env publish layout registry.example/team/debian:12
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    done = Pyro(progress=TaggedProgress("publish")).publish_environment(layout, target)
    if as_json:
        render.result(done)
        return
    there = "" if done["manifest_sent"] or done["sent_blobs"] else " (it was there already)"
    render.lines([f"Published: {done['reference']}{there}", f"Digest: {done['digest']}"])
    render.lines([f"Sent: {done['sent_blobs']} blobs, {done['sent_bytes']} bytes; {done['present_blobs']} were there"])


@command.command("verify", short_help="Compare images with their digests.")
@click.argument("environments", metavar="[ENV]...", nargs=-1)
@output_options
def verify(environments: tuple[str, ...], *, as_json: bool) -> None:
    """Hash the image of each ENV and compare; without ENV those of all that were installed.

    The exit code is 1 when one is missing or differs; `pyro env pull` makes it anew.

    \b
    Examples:
      pyro env verify
      pyro env verify debian:12
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    records = Pyro().verify_environments(*environments)
    if as_json:
        render.result({"environments": records})
    else:
        told = [f"{record['name']} {record['source_digest']} ok" for record in records]
        render.lines(told or ["No environment is installed."])


@command.command("pins", short_help="Show which digest each tag is pinned to.")
@output_options
def pins(*, as_json: bool) -> None:
    """Show which digest each tag is pinned to. `pyro env pull --update` pins it anew.

    \b
    Examples:
      pyro env pins
      pyro env pins --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    found = Pyro().pinned_environments()
    if as_json:
        render.result({"pins": found})
    else:
        render.lines([f"{name} {digest}" for name, digest in sorted(found.items())] or ["No tag is pinned."])


@command.command("prune", short_help="Remove what no installed environment needs.")
@click.option("--all", "everything", is_flag=True, help="Remove all environments, too.")
@click.option("--older-than", metavar="AGE", callback=_age, help="Also those not used for so long: 30d, 12h, 90m.")
@output_options
def prune(*, everything: bool, older_than: float | None, as_json: bool) -> None:
    """Remove what no installed environment needs.

    \b
    Examples:
      pyro env prune
      pyro env prune --older-than 30d
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pruned = Pyro().prune_environments(everything=everything, older_than_seconds=older_than)
    if as_json:
        render.result(pruned)
        return
    noun = "entry" if pruned["count"] == 1 else "entries"
    render.lines([f"Deleted {pruned['count']} cached environment {noun}."])
    render.lines(f"- {name}" for name in pruned["deleted_environment_dirs"])


def _show_pulled(pulled: PulledEnvironment, done: str, *, as_json: bool) -> None:
    if as_json:
        render.result(pulled)
    else:
        render.lines([f"{done}: {pulled['name']}", *_detail(pulled, pulled)])


def _detail(record: EnvironmentRecord, pulled: PulledEnvironment | None = None) -> Iterator[str]:
    yield f"Version: {record['version']}"
    if record["distribution"]:
        yield f"Distribution: {record['distribution']} {record['distribution_version']}"
    yield f"Installed: {'yes' if record['installed'] else 'no'}"
    yield f"Cache dir: {record['cache_dir']}"
    if record["default_packages"]:
        yield f"Default packages: {', '.join(record['default_packages'])}"
    yield f"Description: {record['description']}"
    if record["installed"]:
        yield f"Install dir: {record['install_dir']}"
        yield f"Install manifest: {record.get('install_manifest', '')}"
    if pulled is not None:
        yield f"Kernel image: {pulled['kernel_image']}"
        yield f"Rootfs image: {pulled['rootfs_image']}"
        yield f"Source: {pulled['source']}"
    if record.get("pinned_digest"):
        yield f"Pinned digest: {record['pinned_digest']}"
    if record["oci_registry"]:
        separator = "@" if record["oci_reference"].startswith("sha256:") else ":"
        yield f"OCI source: {record['oci_registry']}/{record['oci_repository']}{separator}{record['oci_reference']}"
