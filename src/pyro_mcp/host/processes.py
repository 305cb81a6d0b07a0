"""Processes of other programs: identified by pid and start time, watched and stopped through pidfds."""

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.host.deadline import Deadline


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for ever: a *pid* is used again, but not with the same *start_ticks* (field 22 of proc(5) stat)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The identity of the live process *pid*; ``None`` when there is none or it is a zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        # The command name is in parentheses and may hold anything: count the fields behind the last one.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return cls(pid, int(fields[19]))

    @classmethod
    def current(cls) -> "ProcessId":
        """The identity of this process."""
        found = cls.of(os.getpid())
        if found is None:
            raise RuntimeError("/proc does not show this process")
        return found

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return ProcessId.of(self.pid) == self

    def ended(self, deadline: Deadline) -> bool:
        """Wait for its end, of whatever cause; ``False`` when it still runs at *deadline*."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return not self.alive or _readable(pidfd, deadline)
        finally:
            os.close(pidfd)

    def stop(self, *, grace: float, deadline: Deadline) -> bool:
        """Send SIGTERM, after *grace* seconds SIGKILL; ``True`` when the process is proved gone by *deadline*.

        The signal goes through a pidfd that was opened before the identity was checked, so it cannot hit a stranger.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            for number, patience in ((signal.SIGTERM, deadline.sooner(grace)), (signal.SIGKILL, deadline)):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if _readable(pidfd, patience):
                    return True
            return not self.alive
        finally:
            os.close(pidfd)


def _readable(descriptor: int, deadline: Deadline) -> bool:
    """Wait until *descriptor* is readable; a pidfd is when its process has ended."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    timeout = deadline.timeout
    return bool(poller.poll(None if timeout is None else timeout * 1000))


def namespaces_of_its_own(pid: int) -> frozenset[str]:
    """The kinds of namespaces (as /proc names them: ``net``, ``user``) in which *pid* is not where we are."""
    found = set()
    for ours in Path("/proc/self/ns").iterdir():
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            if Path(f"/proc/{pid}/ns/{ours.name}").readlink() != ours.readlink():
                found.add(ours.name)
    return frozenset(found)


def boot_id() -> str:
    """The id of the host's present boot (random(4)); verdicts about the machine are remembered by it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def resident_mib(process: ProcessId) -> int:
    """Memory of the process that is in RAM (proc(5) statm); 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
