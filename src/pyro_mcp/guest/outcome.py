"""How jobs end: the protocol's EXIT object."""

import re
import secrets
from dataclasses import dataclass

from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.answers import Answer

JOB = re.compile(r"[0-9a-f]{16}")
CAUSES = frozenset({"timeout", "oom", "process_limit", "disk_full", "signal"})
PID_MOST = (1 << 31) - 1
ERROR_MOST = 4096


def new_job() -> str:
    """A random job id, 16 hex digits."""
    return secrets.token_hex(8)


def check_job(job: str) -> str:
    """Return *job*; raises InvalidRequest unless it is 16 lower-case hex digits."""
    if not isinstance(job, str) or not JOB.fullmatch(job):
        raise InvalidRequest(f"{job!r:.60} is not a job id (16 lower-case hex digits)")
    return job


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to exec and attach. *fresh*: this request started the job, it was not known before."""

    job: str
    pid: int
    fresh: bool
    stdin_credit: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job ended. *error* says why the program could not be started, else it is empty."""

    exit_code: int
    signal: int
    timed_out: bool
    causes: tuple[str, ...]
    error: str
    duration_ms: int
    stdout_bytes: int
    stderr_bytes: int
    stdout_dropped: int
    stderr_dropped: int


def read_started(answer: Answer) -> Started:
    """Check and read the RESPONSE to exec and attach."""
    return Started(
        job=answer.matching("job", JOB),
        pid=answer.integer("pid", high=PID_MOST),
        fresh=answer.flag("started"),
        stdin_credit=answer.integer("stdin_credit", high=0xFFFFFFFF),
    )


def read_exit(answer: Answer) -> Exit:
    """Check and read an EXIT object. Causes this pyro does not know are left out."""
    return Exit(
        exit_code=answer.integer("exit_code", high=255),
        signal=answer.integer("signal", high=64),
        timed_out=answer.flag("timed_out"),
        causes=tuple(dict.fromkeys(cause for cause in answer.texts("causes", 32, 32) if cause in CAUSES)),
        error=answer.text("error", ERROR_MOST),
        duration_ms=answer.integer("duration_ms"),
        stdout_bytes=answer.integer("stdout_bytes"),
        stderr_bytes=answer.integer("stderr_bytes"),
        stdout_dropped=answer.integer("stdout_dropped"),
        stderr_dropped=answer.integer("stderr_dropped"),
    )
