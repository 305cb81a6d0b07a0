"""``pyro task logs``: a task's history."""

from typing import TYPE_CHECKING

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.options import output_options, task_argument

if TYPE_CHECKING:
    from pyro_mcp.engine.tasks.logs import Piece
    from pyro_mcp.engine.tasks.results import TaskLogEntry


@click.command("logs", short_help="Show a task's history.")
@task_argument
@click.option("--last", "-n", type=int, default=None, metavar="N", help="Only the last N commands.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until the task has ended.")
@output_options
def command(task: str, last: int | None, *, follow: bool, as_json: bool) -> None:
    """Show the commands that ran in TASK, with what they wrote: stdout on stdout, stderr on stderr.

    An expired task can be asked for an hour. With --follow and --json: one object per command that has ended.

    \b
    Examples:
      pyro task logs demo
      pyro task logs demo --last 1
      pyro task logs demo --follow
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    if follow:
        _follow(task, last, as_json=as_json)
        return
    from pyro_mcp.sdk import Pyro

    found = Pyro().logs_task(task, last=last)
    if as_json:
        render.result(found)
        return
    if found["cause"]:
        render.progress_line(f"[task-logs] task {found['task_id']} {found['state']}: {found['cause']}")
    if not found["entries"]:
        render.lines([f"no commands in the history of task {found['task_id']}: no logs found"])
    for entry in found["entries"]:
        render.lines(_head(entry))
        _write(1, entry.get("stdout", "").encode())
        _write(2, entry.get("stderr", "").encode())


def _follow(task: str, last: int | None, *, as_json: bool) -> None:
    from pyro_mcp.sdk import Pyro

    for piece in Pyro().follow_task(task, last=last):
        if as_json:
            if piece.last:
                render.result(piece.as_dict())
        else:
            _show_piece(piece)


def _show_piece(piece: "Piece") -> None:
    entry = piece.entry
    if piece.first:
        render.lines([f"#{entry.sequence} cwd={entry.cwd}", f"$ {entry.command}"])
    _write(1, piece.stdout)
    _write(2, piece.stderr)
    if piece.last:
        render.lines([f"#{entry.sequence} {_end(entry.state, entry.exit_code, entry.duration_ms, entry.reason)}"])


def _head(entry: "TaskLogEntry") -> list[str]:
    end = _end(entry["state"], entry["exit_code"], entry["duration_ms"], entry["reason"])
    causes = f" causes={','.join(entry['causes'])}" if entry["causes"] else ""
    return [f"#{entry['sequence']} {end} cwd={entry['cwd']}{causes}", f"$ {entry['command']}"]


def _end(state: str, exit_code: int | None, duration_ms: int | None, reason: str) -> str:
    if state == "running":
        return "state=running"
    if state == "lost":
        return f"state=lost reason={reason!r}"
    return f"exit_code={exit_code} duration_ms={duration_ms}"


def _write(descriptor: int, data: bytes) -> None:
    if data:
        render.guest_bytes(descriptor, data)
