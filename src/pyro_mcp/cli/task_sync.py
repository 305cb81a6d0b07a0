"""``pyro task sync``: files into a task, and out of it."""

from typing import TYPE_CHECKING, Any

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group
from pyro_mcp.cli.options import file_names, output_options, task_argument
from pyro_mcp.cli.progress import TaggedProgress

if TYPE_CHECKING:
    from pyro_mcp.sdk.tasks import PushedSync


@click.group("sync", cls=Group, short_help="Bring files into a task, or out of it.")
def command() -> None:
    """Bring files into a task, or out of it: whole or not at all.

    \b
    Examples:
      pyro task sync push demo .
      pyro task sync pull demo build/report.html .
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("push", short_help="Bring a directory or an archive into a task.")
@task_argument
@click.argument("source", shell_complete=file_names)
@click.option(
    "--dest", default=model.WORKSPACE, show_default=True, metavar="DIR", help="Where to: /workspace or below it."
)
@click.option("--delete", is_flag=True, help="Also remove what SOURCE does not have.")
@click.option("--dry-run", is_flag=True, help="Say what would change; change nothing.")
@click.option("--respect-ignore", is_flag=True, help="Leave out what .gitignore and .pyroignore name.")
@output_options
def push(
    task: str, source: str, dest: str, *, delete: bool, dry_run: bool, respect_ignore: bool, as_json: bool
) -> None:
    """Bring SOURCE (a directory, .tar, .tar.gz or .tgz) into TASK. Only what changed crosses.

    A push that fails, or is killed, leaves the files as they were.

    \b
    Examples:
      pyro task sync push demo .
      pyro task sync push demo ./src --dest src --delete
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pushed = Pyro(progress=TaggedProgress("task-sync")).push_task_sync(
        task, source, dest=dest, delete=delete, dry_run=dry_run, respect_ignore=respect_ignore
    )
    if as_json:
        render.result(pushed)
        return
    sync = pushed["workspace_sync"]
    _warn(sync)
    if dry_run:
        render.lines(f"{change['action']} {render.printable(change['path'])}" for change in sync["changes"])
    more = (
        f" transferred_entries={sync['transferred_entries']} transferred_bytes={sync['transferred_bytes']}"
        f" deleted_entries={sync['deleted_entries']}{' dry_run=yes' if dry_run else ''}"
    )
    render.lines([_line(pushed) + more])


@command.command("pull", short_help="Bring a file or a directory out of a task.")
@task_argument
@click.argument("path")
@click.argument("dest", shell_complete=file_names)
@click.option("--replace", is_flag=True, help="Take the place of what stands at DEST.")
@output_options
def pull(task: str, path: str, dest: str, *, replace: bool, as_json: bool) -> None:
    """Bring PATH of TASK (/workspace or below it; relative: below it) to DEST on this host.

    \b
    Examples:
      pyro task sync pull demo build/report.html .
      pyro task sync pull demo /workspace ./result
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    pulled = Pyro(progress=TaggedProgress("task-sync")).pull_task_sync(task, path, dest, replace=replace)
    if as_json:
        render.result(pulled)
        return
    _warn(pulled["workspace_sync"])
    render.lines([_line(pulled)])


def _line(done: "PushedSync") -> str:
    sync = done["workspace_sync"]
    return (
        f"[task-sync] task_id={done['task_id']} mode={sync['mode']} source={render.printable(sync['source_path'])}"
        f" destination={render.printable(sync['destination'])} entry_count={sync['entry_count']}"
        f" bytes_written={sync['bytes_written']} execution_mode={done['execution_mode']}"
    )


def _warn(sync: dict[str, Any]) -> None:
    for warning in sync["warnings"]:
        render.progress_line(f"[task-sync] warning: {render.printable(warning)}")
