"""How long the host waits for a job, and how it stops one."""

import signal

from pyro_mcp.errors import Interrupted, LinkTimeout
from pyro_mcp.host.deadline import Deadline

LAST_CALL = 1.0
KILL_PATIENCE = 3.0


class Patience:
    """Two ends of the wait: the caller's *deadline*, and *job*, by when the guest should have ended the job.

    Time that the sinks take (a pager, a full pipe) does not count against the job. When *job* has come, there
    is one last call of a second, for a host process that was itself stopped (Ctrl-Z) while the guest went on.
    """

    def __init__(self, deadline: Deadline, job: Deadline) -> None:
        self._deadline = deadline
        self._job = job
        self._last_call = False

    @property
    def job_end(self) -> Deadline:
        """By when the guest should have ended the job."""
        return self._job

    @property
    def end(self) -> Deadline:
        """When to look again."""
        return Deadline(min(self._deadline.at, self._job.at))

    def excuse(self, seconds: float) -> None:
        """The guest could do nothing for these *seconds*."""
        self._job = Deadline(self._job.at + seconds)

    def check(self) -> None:
        """Raise LinkTimeout when the wait is over."""
        self._deadline.check("the command in the guest", LinkTimeout)
        if not self._job.passed:
            return
        if self._last_call:
            raise LinkTimeout("the guest did not end the command at its timeout")
        self._last_call = True
        self._job = Deadline.after(LAST_CALL)


class Cancelling:
    """SIGTERM, then SIGKILL after *grace* seconds or at the second request, then no more waiting."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._next = Deadline.never()
        self._sent: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether the job is to be stopped."""
        return self._sent is not None

    @property
    def next(self) -> Deadline:
        """When to look again."""
        return self._next

    def ask(self) -> int | None:
        """The caller asks: the signal to send now, if any."""
        if self._sent is None:
            return self._send(signal.SIGTERM, self._grace)
        return self._kill() if self._sent is signal.SIGTERM else None

    def due(self) -> int | None:
        """The signal that is due; raises Interrupted when even SIGKILL did not end the job in time."""
        if not self._next.passed:
            return None
        if self._sent is signal.SIGTERM:
            return self._kill()
        raise Interrupted("the command was cancelled; the guest did not confirm its end")

    def _kill(self) -> int:
        return self._send(signal.SIGKILL, KILL_PATIENCE)

    def _send(self, number: signal.Signals, patience: float) -> int:
        self._sent = number
        self._next = Deadline.after(patience)
        return int(number)
