"""Calls as jobs: each runs in a worker thread, outlives its request when that must be answered, and is run once.

A request waits for its job for a while; then it is answered with the job's id, and ``job_wait``, ``job_read`` and
``job_cancel`` take over. A repeated request with the same idempotency key meets the job of the first, or is refused
when that is no longer kept: it never runs again.
"""

import functools
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import anyio.to_thread

from pyro_mcp.errors import CapacityReached, Interrupted, InvalidRequest, PyroError, UnknownJob
from pyro_mcp.guest.control import Control
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.host.progress import Stoppable, readable_size
from pyro_mcp.mcp_server.listener import CallProgress
from pyro_mcp.mcp_server.spool import Spool

RUNNING_MOST = 64
KEPT_MOST = 48  # ended jobs whose output and result can still be asked for
KEPT_BYTES = 256 << 20
BYTES_PER_JOB = 128 << 10  # besides its output
KEYS_MOST = 10_000  # idempotency keys, also of jobs that are no longer kept

JobState = Literal["running", "completed", "failed", "cancelled"]
Outcome = Mapping[str, Any]


class Job:
    """One call. The worker thread writes *stdout*, *stderr* and *progress*; the event loop owns the rest."""

    def __init__(self, tool: str, *, job_id: str, task_id: str | None, directory: Path | None) -> None:
        self.id = job_id
        self.tool = tool
        self.task_id = task_id
        self.began = time.monotonic()
        self.control = Control()
        self.progress = CallProgress()
        self.listener = Stoppable(self.progress)
        self.spools = {"stdout": Spool(directory), "stderr": Spool(directory)}
        self.finished = anyio.Event()
        self.waiting = 0
        self.outcome: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.cancel_requested = False
        self.stop: Callable[[int], object] | None = None  # for a command of a task, which has a life of its own
        # A client that goes away must not cut off the clean-up of what it started: only the server's end does.
        self.scope = anyio.CancelScope(shield=True)
        self._started = threading.Event()

    def on_stdout(self, data: bytes) -> None:
        """Take output of the command."""
        self.spools["stdout"].add(data)

    def on_stderr(self, data: bytes) -> None:
        """Take error output of the command."""
        self.spools["stderr"].add(data)

    def on_started(self) -> None:
        """The command is in the guest's hands: from now on it must not be run again."""
        self._started.set()

    @property
    def started(self) -> bool:
        """Whether something was done that a retry would do again."""
        return self._started.is_set() or self.outcome is not None

    @property
    def state(self) -> JobState:
        """How far it is."""
        if not self.finished.is_set():
            return "running"
        if isinstance(self.error, Interrupted) and self.cancel_requested:
            return "cancelled"
        return "failed" if self.error is not None else "completed"

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self.began

    @property
    def line(self) -> str:
        """Its news for the client."""
        written = sum(spool.total for spool in self.spools.values())
        tail = f", {readable_size(written)} of output" if written else ""
        where = "running the command" if self._started.is_set() else self.progress.line
        return f"{where} ({self.seconds:.0f} s{tail})"

    def cancel(self) -> None:
        """End it: its command gets SIGTERM, on a second call SIGKILL; other work stops at its next step."""
        self.cancel_requested = True
        self.listener.stop()
        self.control.cancel()

    @property
    def held(self) -> int:
        """Bytes that are kept for it."""
        return BYTES_PER_JOB + sum(spool.held for spool in self.spools.values())

    @property
    def came_to_nothing(self) -> bool:
        """Whether it failed before it did anything: trying again is then what a key is for."""
        return self.finished.is_set() and self.error is not None and not self.started

    def close(self) -> None:
        """Let go of all it holds; it has ended."""
        self.control.close()
        for spool in self.spools.values():
            spool.close()


@dataclass(slots=True)
class _Call:
    """What a key stands for: the request, by its digest, and its job, as long as that is kept."""

    mark: bytes
    job_id: str
    task_id: str | None
    job: Job | None


class JobTable:
    """The jobs of a server."""

    def __init__(self, group: anyio.abc.TaskGroup, directory: Path | None = None) -> None:
        self._group = group
        self._directory = directory
        self._limiter = anyio.CapacityLimiter(RUNNING_MOST)
        self._jobs: dict[str, Job] = {}
        self._aliases: dict[str, str] = {}
        self._keys: dict[str, _Call] = {}  # the oldest first

    @property
    def running(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self._jobs.values() if not job.finished.is_set()]

    def find(self, job_id: str) -> Job | None:
        """A job that is still known."""
        return self._jobs.get(self._aliases.get(job_id, job_id))

    def begin(
        self,
        tool: str,
        work: Callable[[Job], Outcome],
        *,
        key: str | None = None,
        request: Mapping[str, Any] | None = None,
        job_id: str | None = None,
        task_id: str | None = None,
    ) -> Job:
        """Start *work* in a thread, or return the job that an earlier request with the same *key* has started.

        Raises InvalidRequest for a key that was used for another request, UnknownJob for one whose job is no longer
        kept, CapacityReached when too much runs.
        """
        mark = hashlib.sha256(json.dumps([tool, request or {}], sort_keys=True, default=str).encode()).digest()
        if key is not None and (known := self._known(key, mark)) is not None:
            return known
        if len(self.running) >= RUNNING_MOST:
            raise CapacityReached(
                f"{RUNNING_MOST} calls are running on this server", remedy="Wait for some of them, or cancel them."
            )
        self._forget()
        job = Job(tool, job_id=job_id or new_job(), task_id=task_id, directory=self._directory)
        self._jobs[job.id] = job
        if key is not None:
            self._keys[key] = _Call(mark, job.id, task_id, job)
        self._group.start_soon(self._carry, job, work, name=f"{tool} {job.id}")
        return job

    def cancel_all(self) -> None:
        """End whatever runs."""
        for job in self.running:
            job.cancel()

    def abandon(self) -> None:
        """Wait for no thread any more."""
        for job in self.running:
            job.scope.cancel()

    def close(self) -> None:
        """Let go of what ended jobs hold; an abandoned one may still use it."""
        for job in self._jobs.values():
            if job.finished.is_set() and not job.scope.cancel_called:
                job.close()

    def _known(self, key: str, mark: bytes) -> Job | None:
        earlier = self._keys.get(key)
        if earlier is None:
            return None
        if earlier.mark != mark:
            raise InvalidRequest(
                f"idempotency_key {key!r:.80} was used for another call", remedy="Take a new key for every new call."
            )
        if earlier.job is None:
            look = f" task_logs of task {earlier.task_id} may still tell." if earlier.task_id else ""
            raise UnknownJob(
                f"the call with idempotency_key {key!r:.80} ran as job {earlier.job_id}; its result is no longer kept",
                remedy=f"Look at what it has done.{look} To run it again, take a new key.",
            )
        if earlier.job.came_to_nothing:
            del self._keys[key]
            return None
        return earlier.job

    async def _carry(self, job: Job, work: Callable[[Job], Outcome]) -> None:
        job.error = Interrupted("the server ended")
        try:
            with job.scope:
                outcome = await anyio.to_thread.run_sync(
                    functools.partial(work, job), limiter=self._limiter, abandon_on_cancel=True
                )
                job.outcome, job.error = dict(outcome), None
                self._alias(job, outcome.get("job_id"))
        except PyroError as error:
            job.error = error
        except Exception as error:  # noqa: BLE001 - it is raised again in the request, where the SDK logs it
            job.error = error
        finally:
            job.finished.set()

    def _alias(self, job: Job, name: object) -> None:
        """The command that this call has run has an id of its own in its task."""
        if isinstance(name, str) and job.outcome is not None and "stdout" in job.outcome:
            self._aliases[name] = job.id

    def _forget(self) -> None:
        """Drop the oldest ended jobs beyond what is kept, and the oldest keys of those that were dropped."""
        ended = [job for job in self._jobs.values() if job.finished.is_set() and not job.waiting]
        held = sum(job.held for job in ended)
        while ended and (len(ended) >= KEPT_MOST or held > KEPT_BYTES):
            job = ended.pop(0)
            held -= job.held
            del self._jobs[job.id]
            self._aliases = {alias: target for alias, target in self._aliases.items() if target != job.id}
            self._let_go(job)
            job.close()
        dropped = [key for key, call in self._keys.items() if call.job is None]
        for key in dropped[: max(0, len(self._keys) + 1 - KEYS_MOST)]:
            del self._keys[key]

    def _let_go(self, job: Job) -> None:
        """Its key outlives it, unless the job came to nothing."""
        for key, call in [(key, call) for key, call in self._keys.items() if call.job is job]:
            if job.came_to_nothing:
                del self._keys[key]
            else:
                call.job = None
