"""``pyro task``: persistent machines for many commands."""

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pyro_mcp.cli import render
from pyro_mcp.cli.groups import Group, SectionedCommand
from pyro_mcp.cli.network import network_lines
from pyro_mcp.cli.options import (
    environment_argument,
    file_names,
    machine_options,
    output_options,
    parse_labels,
    task_argument,
)
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.cli.task_publish import published
from pyro_mcp.host.progress import readable_size

if TYPE_CHECKING:
    from pyro_mcp.engine.tasks.results import TaskRecordResult

# verb: (module, its line in the help); the module holds a click command named ``command``
ELSEWHERE = {
    "attach": ("pyro_mcp.cli.task_attach", "Follow a job's output to its end."),
    "exec": ("pyro_mcp.cli.task_exec", "Run a command in a task."),
    "logs": ("pyro_mcp.cli.task_logs", "Show a task's history."),
    "publish": ("pyro_mcp.cli.task_publish", "Make a port of a task one of this host."),
    "signal": ("pyro_mcp.cli.task_signal", "Send a signal to a job."),
    "sync": ("pyro_mcp.cli.task_sync", "Bring files into a task, or out of it."),
    "unpublish": ("pyro_mcp.cli.task_unpublish", "Take published ports back."),
    "wait": ("pyro_mcp.cli.task_wait", "Wait for a job's end."),
}


class TaskVerbs(Group):
    """The verbs of this file, and those that are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the help."""
        return sorted({*super().list_commands(ctx), *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module if it has one of its own."""
        if cmd_name in ELSEWHERE:
            found: click.Command = importlib.import_module(ELSEWHERE[cmd_name][0]).command
            return found
        return super().get_command(ctx, cmd_name)


@click.group("task", cls=TaskVerbs, short_help="Keep a machine for many commands: create, sync, exec, logs, delete.")
def command() -> None:
    """Keep a machine for many commands. TASK is an id or a name.

    \b
    Examples:
      pyro task create debian:12 --name demo --source-path .
      pyro task exec demo -- git status
      pyro task logs demo
      pyro task delete demo
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped


@command.command("create", cls=SectionedCommand, short_help="Make a task and start it.")
@environment_argument
@machine_options
@click.option(
    "--source-path",
    default=None,
    metavar="PATH",
    shell_complete=file_names,
    help="Directory, .tar, .tar.gz or .tgz for /workspace.",
)
@click.option("--name", default=None, help="A name to use in place of the id; unique among living tasks.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; repeatable.")
@click.option("--idle-seconds", type=int, default=None, help="End it when nothing ran and nobody asked for so long.")
@click.option("--id-only", is_flag=True, help="Print only the task's id.")
@output_options
def create(
    environment: str,
    source_path: str | None,
    name: str | None,
    labels: tuple[str, ...],
    idle_seconds: int | None,
    *,
    id_only: bool,
    as_json: bool,
    **machine: object,
) -> None:
    """Make a task from ENV and start it. It ends when its time is over, when it is idle, or when it is deleted.

    \b
    Examples:
      pyro task create debian:12
      pyro task create debian:12 --source-path . --name demo --ttl-seconds 7200 --idle-seconds 900
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    record = Pyro(progress=TaggedProgress("task-create")).create_task(
        environment=environment,
        source_path=source_path,
        name=name,
        labels=parse_labels(labels),
        idle_seconds=idle_seconds,
        **machine,  # type: ignore[arg-type]  # click's options are named as the parameters are
    )
    if id_only:
        render.lines([record["task_id"]])
    else:
        _show(record, as_json=as_json)


@command.command("status", short_help="Show a task's state, its last command and what it uses.")
@task_argument
@output_options
def status(task: str, *, as_json: bool) -> None:
    """Show the state of TASK, its last command, what it uses, and the time it has left.

    \b
    Examples:
      pyro task status demo
      pyro task status demo --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    _show(Pyro().status_task(task), as_json=as_json)


@command.command("list", short_help="Show all tasks.")
@output_options
def list_tasks(*, as_json: bool) -> None:
    """Show all tasks; those that expired within the last hour, too.

    \b
    Examples:
      pyro task list
      pyro task list --json
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    found = Pyro().list_tasks()
    if as_json:
        render.result(found)
        return
    if not found["tasks"] and not found["damaged"]:
        render.lines(["no tasks"])
        return
    rows = [("TASK ID", "NAME", "STATE", "ENVIRONMENT", "COMMANDS", "TIME LEFT")]
    rows += [
        (
            record["task_id"],
            record["name"] or "-",
            record["state"],
            record["environment"],
            str(record["command_count"]),
            f"{record['remaining_seconds']} s",
        )
        for record in found["tasks"]
    ]
    rows += [(task_id, "-", "damaged", "-", "-", "-") for task_id in found["damaged"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    render.lines("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


@command.command("delete", short_help="End a task and remove all that is its own.")
@task_argument
@output_options
def delete(task: str, *, as_json: bool) -> None:
    """End TASK and remove all that is its own, also its history. Running commands are killed.

    \b
    Examples:
      pyro task delete demo
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    deleted = Pyro().delete_task(task)
    if as_json:
        render.result(deleted)
    else:
        render.lines([f"Deleted task: {deleted['task_id']}"])


@command.command("extend", short_help="Give a task more time.")
@task_argument
@click.option("--ttl-seconds", type=int, default=None, help="It lives so long from now (60-604800).")
@click.option("--idle-seconds", type=int, default=None, help="Its new idle time; 0: none.")
@output_options
def extend(task: str, ttl_seconds: int | None, idle_seconds: int | None, *, as_json: bool) -> None:
    """Let TASK live --ttl-seconds from now, and change its idle time.

    \b
    Examples:
      pyro task extend demo --ttl-seconds 3600
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    from pyro_mcp.sdk import Pyro

    _show(Pyro().extend_task(task, ttl_seconds=ttl_seconds, idle_seconds=idle_seconds), as_json=as_json)


def _show(record: "TaskRecordResult", *, as_json: bool) -> None:
    if as_json:
        render.result(record)
    else:
        render.lines(_summary(record))


def _summary(record: "TaskRecordResult") -> Iterator[str]:
    yield f"Task ID: {record['task_id']}"
    if record["name"]:
        yield f"Name: {record['name']}"
    if record["labels"]:
        yield "Labels: " + ", ".join(f"{key}={value}" for key, value in sorted(record["labels"].items()))
    yield f"Environment: {record['environment']}"
    yield f"State: {record['state']}"
    if record["cause"]:
        yield f"Cause: {record['cause']}"
    seed = record["workspace_seed"]
    yield f"Workspace: {record['workspace_path']}"
    source = f" from {seed['source_path']}" if seed["source_path"] else ""
    yield f"Workspace seed: {seed['mode']}{source}"
    yield f"Execution mode: {record['execution_mode']}"
    yield f"Resources: {record['vcpu_count']} vCPU / {record['mem_mib']} MiB"
    usage = record["usage"]
    if usage:
        used, total = readable_size(usage["memory_used_bytes"]), readable_size(usage["memory_total_bytes"])
        yield f"Memory used: {used} of {total}"
        used, total = readable_size(usage["disk_used_bytes"]), readable_size(usage["disk_total_bytes"])
        yield f"Disk used: {used} of {total}"
    for line in network_lines(record["network"]):
        yield f"Network: {line}"
    if record["state"] in ("started", "stopped"):
        idle = f", or {record['idle_seconds']} s after its last use" if record["idle_seconds"] else ""
        yield f"Time left: {record['remaining_seconds']} s{idle}"
    for port in record["published_ports"]:
        yield f"Published: {published(port)}"
    yield f"Command count: {record['command_count']}"
    last = record["last_command"]
    if last:
        end = f"exit_code={last['exit_code']}" if last["state"] == "done" else last["state"]
        yield f"Last command: {last['command']} ({end})"
