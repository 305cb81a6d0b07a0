"""The errors of a link that carry more than their text. Their codes are those of the classes above them."""

from collections.abc import Iterable
from dataclasses import dataclass

from pyro_mcp.errors import GuestRefused, LinkTimeout
from pyro_mcp.host.deadline import Deadline

NEVER = Deadline.never()

ERROR_CODES = frozenset(
    {
        "bad_request",
        "unknown_op",
        "not_configured",
        "no_such_job",
        "no_such_user",
        "bad_cwd",
        "too_many_jobs",
        "busy",
        "no_space",
        "no_such_path",
        "bad_path",
        "conflict",
        "no_such_stage",
        "internal",
    }
)

_REMEDIES = {
    "no_such_user": "Name a user or a uid that exists in this environment.",
    "bad_cwd": "Name a directory that exists in the guest and that the user may enter.",
    "no_such_job": "The job was forgotten or the machine was started anew; run the command again.",
    "too_many_jobs": "Wait for a running command of this machine to end.",
    "busy": "Wait for the other operation on this machine to end.",
    "unknown_op": "Delete the machine and create it again: its agent is older than this pyro.",
}


class AgentRefused(GuestRefused):
    """The agent answered ERROR. *guest_code* is one of the protocol's codes; the text is safe to show."""

    def __init__(
        self,
        cause: str,
        *,
        remedy: str | None = None,
        details: Iterable[str] = (),
        guest_code: str = "internal",
    ) -> None:
        super().__init__(cause, remedy=remedy or _REMEDIES.get(guest_code), details=details)
        self.guest_code = guest_code


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job's streams had come: what ``attach`` needs.

    *stdin_bytes* were handed to the link. By *ends* the guest should have ended the job itself.
    """

    job: str
    stdout_offset: int = 0
    stderr_offset: int = 0
    stdin_bytes: int = 0
    ends: Deadline = NEVER


class LinkLost(LinkTimeout):
    """The connection was closed while the machine seemed alive.

    In a job, *progress* says where to attach again.
    """

    def __init__(
        self,
        cause: str,
        *,
        remedy: str | None = None,
        details: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> None:
        super().__init__(cause, remedy=remedy, details=details)
        self.progress = progress


class LineWanted(LinkLost):
    """The line was given up for somebody who waits for one. The job goes on: attach again with *progress*."""
