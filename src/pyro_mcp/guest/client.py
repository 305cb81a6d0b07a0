"""The agent of one machine, as the engine talks to it."""

import os
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pyro_mcp.errors import MachineDied
from pyro_mcp.guest.answers import Answer
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.guest.identity import Identity
from pyro_mcp.guest.operations import b64, exchange
from pyro_mcp.guest.outcome import JOB, PID_MOST, Exit, check_job, read_exit
from pyro_mcp.host.deadline import Deadline

NAME_MOST = 128
STAGES_MOST = 64
JOBS_MOST = 4096
CLOCK_LATE = 0.025
CLOCK_TRIES = 4
BOOT_ID = re.compile(r"[0-9a-f-]{1,64}")


class ChannelOpener(Protocol):
    """What drivers implement: a fresh session with the agent, closed when the context is left."""

    def open(self, deadline: Deadline) -> AbstractContextManager[Session]:
        """Open a session.

        Raises LinkTimeout, MachineDied, GuestProtocol, or Busy when no channel gets free in time.
        """


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """What the agent says about itself and its kernel.

    *boot_ms* are the stages of the boot, in milliseconds.
    """

    agent_version: str
    generation: int
    kernel: str
    boot_id: str
    uptime_ms: int
    boot_ms: dict[str, int]
    configured: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What the machine uses."""

    memory_total_kib: int
    memory_available_kib: int
    memory_free_kib: int
    disk_total_bytes: int
    disk_free_bytes: int
    processes: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job the agent knows. *exit* is there once it has ended."""

    job: str
    pid: int
    running: bool
    exit: Exit | None


class Agent:
    """The operations of the protocol.

    Each opens a session of its own, so any number of threads may share an agent.

    Every method raises LinkTimeout, MachineDied, GuestProtocol, or AgentRefused (a GuestRefused with
    ``guest_code``).
    """

    def __init__(self, opener: ChannelOpener) -> None:
        self._opener = opener

    def info(self, deadline: Deadline) -> AgentInfo:
        """What the agent is; the cheapest sign of life."""
        answer = self._ask("info", {}, deadline)
        return AgentInfo(
            agent_version=answer.text("agent_version", NAME_MOST),
            generation=answer.integer("generation", high=0xFFFF),
            kernel=answer.text("kernel", NAME_MOST),
            boot_id=answer.matching("boot_id", BOOT_ID),
            uptime_ms=answer.integer("uptime_ms"),
            boot_ms=answer.object("boot_ms").integers(STAGES_MOST, NAME_MOST),
            configured=answer.flag("configured"),
        )

    def configure(self, identity: Identity, deadline: Deadline) -> tuple[str, ...]:
        """Give the guest its identity, randomness and the time; what was applied.

        Needed before the first command.
        """
        with self._opener.open(deadline) as session:
            entropy = identity.entropy
            for _ in range(CLOCK_TRIES):
                sent = time.monotonic()
                fields: dict[str, Any] = {
                    "hostname": identity.hostname,
                    "machine_id": identity.machine_id,
                    "time_unix_ns": time.time_ns(),
                    "entropy": b64(entropy),
                    "resumed": identity.resumed,
                }
                if identity.nic is not None:
                    fields["network"] = identity.nic.as_fields()
                answer = exchange(session, "configure", fields, deadline)
                # The guest's clock is behind by a part of that time. What a resumed guest does first is slow, what it
                # does again is not.
                if time.monotonic() - sent < CLOCK_LATE:
                    break
                entropy = os.urandom(len(entropy))
            return answer.texts("applied", STAGES_MOST, NAME_MOST)

    def usage(self, deadline: Deadline) -> Usage:
        """Memory, disk and processes of the machine."""
        answer = self._ask("usage", {}, deadline)
        memory, disk = answer.object("memory"), answer.object("disk")
        return Usage(
            memory_total_kib=memory.integer("total_kib"),
            memory_available_kib=memory.integer("available_kib"),
            memory_free_kib=memory.integer("free_kib"),
            disk_total_bytes=disk.integer("total_bytes"),
            disk_free_bytes=disk.integer("free_bytes"),
            processes=answer.integer("processes"),
            oom_kills=answer.integer("oom_kills"),
        )

    def signal(self, job: str, number: int, scope: Literal["group", "all"], deadline: Deadline) -> bool:
        """Send a signal to a job's process group, or to all its processes; whether any got it."""
        fields = {"job": check_job(job), "signal": number, "scope": scope}
        return self._ask("signal", fields, deadline).flag("delivered")

    def jobs(self, deadline: Deadline) -> tuple[JobRecord, ...]:
        """The jobs the agent knows."""
        return tuple(_job(row) for row in self._ask("jobs", {}, deadline).objects("jobs", JOBS_MOST))

    def forget(self, job: str, deadline: Deadline) -> None:
        """Drop an ended job and its buffered output."""
        self._ask("forget", {"job": check_job(job)}, deadline)

    def poweroff(self, deadline: Deadline) -> None:
        """Ask the machine to go off.

        That it has gone is for its driver to see; an answer lost on the way is no error.
        """
        with self._opener.open(deadline) as session:
            try:
                exchange(session, "poweroff", {}, deadline)
            except (MachineDied, LinkLost):
                return

    def _ask(self, op: str, fields: dict[str, Any], deadline: Deadline) -> Answer:
        with self._opener.open(deadline) as session:
            return exchange(session, op, fields, deadline)


def _job(row: Answer) -> JobRecord:
    ended = row.optional("exit")
    return JobRecord(
        job=row.matching("job", JOB),
        pid=row.integer("pid", high=PID_MOST),
        running=row.flag("running"),
        exit=None if ended is None else read_exit(ended),
    )
