"""One command in a guest: started once, and come back to whenever its line is gone while the machine lives."""

from pyro_mcp.engine.outcome import CommandIO, Outcome
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.execution import OutputSinks, attach, execute
from pyro_mcp.guest.faults import LineWanted, LinkLost, Progress
from pyro_mcp.guest.outcome import Exit
from pyro_mcp.guest.stdin import StdinSource
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.model import CommandSpec

LINE_SECONDS = 30.0
REATTACHES = 5
MANNERS = 0.1  # seconds in which whoever waited for the line takes it


def run_job(
    channels: ChannelOpener,
    command: CommandSpec,
    job: str,
    *,
    io: CommandIO,
    sinks: OutputSinks,
    line_seconds: float = LINE_SECONDS,
) -> Exit:
    """Start *command* as *job* and carry its streams to its end. A line is waited for at most *line_seconds*.

    Raises as ``guest.execution.execute``.
    """
    source = io.source()
    try:
        with channels.open(Deadline.after(line_seconds)) as session:
            io.started()
            return execute(
                session, command, job, sinks=sinks, stdin=source, control=io.control, deadline=Deadline.never()
            )
    except LinkLost as lost:
        return _come_back(channels, lost, io, sinks, source, line_seconds)


def follow_job(
    channels: ChannelOpener, start: Progress, *, io: CommandIO, sinks: OutputSinks, line_seconds: float = LINE_SECONDS
) -> Exit:
    """Carry the streams of a job that is known to the guest, from *start* to its end."""
    try:
        with channels.open(Deadline.after(line_seconds)) as session:
            io.started()
            return attach(session, start, sinks=sinks, control=io.control, deadline=Deadline.never())
    except LinkLost as lost:
        return _come_back(channels, lost, io, sinks, None, line_seconds)


def _come_back(
    channels: ChannelOpener,
    lost: LinkLost,
    io: CommandIO,
    sinks: OutputSinks,
    source: StdinSource | None,
    line_seconds: float,
) -> Exit:
    left = REATTACHES
    while lost.progress is not None and left:
        if isinstance(lost, LineWanted):
            until(lambda: False, Deadline.after(MANNERS))
        else:
            left -= 1
        try:
            with channels.open(Deadline.after(line_seconds)) as session:
                return attach(
                    session, lost.progress, sinks=sinks, stdin=source, control=io.control, deadline=Deadline.never()
                )
        except LinkLost as error:
            lost = error
    raise lost


def outcome_of(end: Exit) -> Outcome:
    """A job's end as every way of running tells it."""
    return Outcome(end.exit_code, end.timed_out, end.causes, end.duration_ms, end.error)
