"""Running commands in a guest: exec, attach, and exec that nobody waits for."""

import math
from typing import Any

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.faults import NEVER, Progress
from pyro_mcp.guest.operations import b64, encode_request, exchange
from pyro_mcp.guest.outcome import Exit, Started, check_job, read_started
from pyro_mcp.guest.stdin import StdinSource
from pyro_mcp.guest.streaming import JobStream, OutputSinks
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec

GRACE = 2.0
MARGIN = 5.0
BUFFER_BYTES = 1 << 20
SHELL = ("/bin/sh", "-lc")

__all__ = ["GRACE", "MARGIN", "Control", "OutputSinks", "attach", "execute", "launch"]


def execute(
    session: Session,
    command: CommandSpec,
    job: str,
    *,
    sinks: OutputSinks,
    stdin: StdinSource | None = None,
    control: Control | None = None,
    deadline: Deadline = NEVER,
    grace: float = GRACE,
) -> Exit:
    """Run *command* as *job* (16 hex digits, new for every command) and carry its streams until it ends.

    The guest ends the job after ``command.timeout_seconds`` and *grace* seconds; Exit then says
    ``timed_out``. Without *stdin* the command reads an empty input, whatever ``command.stdin`` says. What
    went to *sinks* stays there, whatever comes:

    - AgentRefused: it was not started, ``guest_code`` says why.
    - LinkTimeout: the guest had not ended the job MARGIN seconds after it should have, or *deadline* came;
      the job may still run.
    - LinkLost (a LinkTimeout): the connection is gone, the job goes on; :func:`attach` with its ``progress``.
    - MachineDied: the machine is gone. GuestProtocol: it cannot be trusted any further.
    - Interrupted: ``control.cancel()`` was called; the job got SIGTERM, and SIGKILL after *grace* seconds.
    """
    fields = _exec_fields(command, job, stdin=stdin is not None, detach=False, grace=grace)
    start = Progress(job, ends=Deadline.after(command.timeout_seconds + grace + MARGIN))
    stream = JobStream(session, start, sinks, stdin=stdin, control=control, deadline=deadline, grace=grace)
    return stream.run(encode_request("exec", fields), running=False)


def attach(
    session: Session,
    progress: Progress,
    *,
    sinks: OutputSinks,
    stdin: StdinSource | None = None,
    control: Control | None = None,
    deadline: Deadline = NEVER,
    grace: float = GRACE,
) -> Exit:
    """Go on with a job from *progress* until it ends.

    *progress* is that of a LinkLost, or ``Progress(job)`` for all that is buffered. As :func:`execute`,
    within the time that *progress* still has and *deadline*. Give the same *stdin* again: it goes on where it
    was, but bytes that were under way when the connection broke may be gone.
    """
    fields = {
        "job": check_job(progress.job),
        "stdout_offset": progress.stdout_offset,
        "stderr_offset": progress.stderr_offset,
    }
    stream = JobStream(session, progress, sinks, stdin=stdin, control=control, deadline=deadline, grace=grace)
    return stream.run(encode_request("attach", fields), running=True)


def launch(session: Session, command: CommandSpec, job: str, *, deadline: Deadline, grace: float = GRACE) -> Started:
    """Start *command* as *job* and leave it alone.

    Its input is empty; the last of its output is kept for :func:`attach`.
    """
    fields = _exec_fields(command, job, stdin=False, detach=True, grace=grace)
    return read_started(exchange(session, "exec", fields, deadline))


def _exec_fields(command: CommandSpec, job: str, *, stdin: bool, detach: bool, grace: float) -> dict[str, Any]:
    terminal = command.terminal
    try:
        argv = [b64(word) for word in command.argv or (*SHELL, command.command)]
        env = [b64(f"{name}={value}") for name, value in command.env.items()]
        cwd = b64(command.cwd)
    except UnicodeEncodeError as error:
        raise InvalidRequest("the command holds characters that are not text") from error
    size = terminal and {"rows": terminal.rows, "cols": terminal.columns, "term": terminal.term}
    return {
        "job": check_job(job),
        "argv": argv,
        "env": env,
        "cwd": cwd,
        "user": command.user,
        "tty": size,
        "stdin": stdin,
        "timeout_ms": math.ceil(command.timeout_seconds * 1000),
        "grace_ms": math.ceil(grace * 1000),
        "buffer_bytes": BUFFER_BYTES,
        "detach": detach,
    }
