"""What the tools of a server share: the SDK, the running calls, the rules of its operator, and its clean-up."""

import contextlib
import functools
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context

from pyro_mcp.engine.publish.ports import Port
from pyro_mcp.errors import InvalidRequest, PyroError, UnknownJob
from pyro_mcp.host.files import private_directory
from pyro_mcp.mcp_server.failures import refusals
from pyro_mcp.mcp_server.jobs import Job, JobTable, Outcome
from pyro_mcp.mcp_server.places import Places
from pyro_mcp.sdk import Pyro

CALL_SECONDS = 50.0  # hosts cut calls at 60 s and up
SHORT_CALLS_MOST = 32
LOOK_SECONDS = 0.25
HEARTBEAT_SECONDS = 5.0
CLEANUP_SECONDS = 1.5  # for the calls, and again for the machines; clients kill their servers after 2 to 4 s
CATCH_UP_SECONDS = 1.0
TERM_GRACE = 5.0
KILL_GRACE = 5.0
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows. *call_seconds*: how long a request waits before it is answered with a job's id."""

    places: Places = field(default_factory=Places)
    allow_host_compat: bool = False
    call_seconds: float = CALL_SECONDS
    publish_addresses: tuple[str, ...] = ()

    def check_host_compat(self, *, wanted: bool) -> None:
        """Raise InvalidRequest when a client wants to run on the host and the operator does not."""
        if wanted and not self.allow_host_compat:
            raise InvalidRequest(
                "allow_host_compat is refused: this server runs commands in virtual machines only",
                remedy="Leave it out. Only the user can allow it, by starting `pyro mcp serve --allow-host-compat`.",
            )

    def check_publish(self, port: Port) -> Port:
        """Return *port*; raises InvalidRequest for an address that other hosts reach, unless the operator allows it."""
        if not port.on_loopback and port.address not in self.publish_addresses:
            raise InvalidRequest(
                f"publishing on {port.address} is refused: other hosts may reach it",
                remedy="Leave it out. Only the user can allow it, by `pyro mcp serve --allow-publish-address ADDR`.",
            )
        return port


class Service:
    """One running server, from its start to its end."""

    def __init__(self, pyro: Pyro, policy: Policy, jobs: JobTable) -> None:
        self.pyro = pyro
        self.policy = policy
        self.jobs = jobs
        self._limiter = anyio.CapacityLimiter(SHORT_CALLS_MOST)
        self._vms: set[str] = set()

    def pyro_for(self, job: Job) -> Pyro:
        """The SDK, telling *job* of its work."""
        return self.pyro.variant(progress=job.listener, own_vms=True)

    def adopt(self, vm_id: str) -> None:
        """This machine dies with the server."""
        self._vms.add(vm_id)

    def check_host_compat(self, *, wanted: bool) -> None:
        """Refuse execution on the host unless the operator allows it."""
        with refusals():
            self.policy.check_host_compat(wanted=wanted)

    def port(self, address: str, host_port: int, guest_port: int) -> Port:
        """The port that a client may have published so; refused otherwise."""
        with refusals():
            return self.policy.check_publish(Port(host_port, guest_port, address))

    def place(self, text: str, client_roots: Iterable[str]) -> Path:
        """The path on this host that a client may name so; refused otherwise."""
        with refusals():
            return self.policy.places.check(text, client_roots)

    async def short(self, work: Callable[[Pyro], Result]) -> Result:
        """Do what takes no time worth telling of, in a thread."""
        with refusals():
            return await anyio.to_thread.run_sync(
                work, self.pyro.variant(own_vms=True), limiter=self._limiter, abandon_on_cancel=True
            )

    async def watch(self, ctx: Context[Any, Any], job: Job, seconds: float | None = None) -> None:
        """Wait for *job*, but not longer than *seconds*, and tell the client how it goes."""
        end = time.monotonic() + (self.policy.call_seconds if seconds is None else seconds)
        told, told_at = "", time.monotonic()
        while not job.finished.is_set() and (left := end - time.monotonic()) > 0:
            with anyio.move_on_after(min(LOOK_SECONDS, left)):
                await job.finished.wait()
            now, stage = time.monotonic(), job.line.split(" (")[0]
            if stage != told or now - told_at >= HEARTBEAT_SECONDS:
                await ctx.report_progress(round(job.seconds, 3), None, job.line)
                told, told_at = stage, now

    async def attend(self, ctx: Context[Any, Any], job: Job) -> None:
        """``watch`` for the request that started *job*: if it is cancelled, so is the job, unless another waits."""
        job.waiting += 1
        try:
            await self.watch(ctx, job)
        except anyio.get_cancelled_exc_class():
            if job.waiting == 1:
                job.cancel()
            raise
        finally:
            job.waiting -= 1

    def start(
        self,
        tool: str,
        work: Callable[[Job], Outcome],
        *,
        key: str | None = None,
        request: Mapping[str, Any] | None = None,
        task_id: str | None = None,
    ) -> Job:
        """As ``JobTable.begin``, for a tool."""
        with refusals():
            return self.jobs.begin(tool, work, key=key, request=request, task_id=task_id)

    async def find(self, job_id: str, task_id: str | None) -> Job:
        """The job with that id: a call of this server, or a command of a task, which is then followed."""
        job = self.jobs.find(job_id)
        if job is not None:
            return job
        with refusals():
            if task_id is None:
                raise UnknownJob(
                    f"this server has no job {job_id}",
                    remedy="For a command of a task give its task_id. Results are kept for a while only.",
                )
        entry = await self.short(lambda pyro: pyro.wait_task_job(task_id, job_id, timeout_seconds=0.01))
        job = self.jobs.find(job_id) or self.follow(entry["task_id"], job_id)
        with anyio.move_on_after(CATCH_UP_SECONDS):  # until what it wrote so far, or its end, is here
            await job.finished.wait()
        return job

    def follow(self, task_id: str, job_id: str) -> Job:
        """Read a command of a task along, so that its output can be asked for."""

        def work(job: Job) -> Outcome:
            pyro = self.pyro_for(job)
            return pyro.attach_task_job(task_id, job_id, on_stdout=job.on_stdout, on_stderr=job.on_stderr)

        with refusals():
            job = self.jobs.begin("job_start", work, job_id=job_id, task_id=task_id)
        job.on_started()

        def stop(number: int) -> object:
            scope: Literal["group", "all"] = "group" if number == signal.SIGTERM else "all"
            return self.pyro.variant().signal_task_job(task_id, job_id, number, scope=scope)

        job.stop = stop
        return job

    async def cancel(self, job: Job) -> None:
        """End a job, first kindly, and wait for its end for some seconds."""
        for number, grace in ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, KILL_GRACE)):
            if job.finished.is_set():
                return
            if job.stop is None:
                job.cancel()
            else:
                job.cancel_requested = True
                await self.short(functools.partial(_stop, job.stop, number))
            with anyio.move_on_after(grace):
                await job.finished.wait()

    async def close(self) -> None:
        """End what must not outlive this server; tasks, and the commands that were started in them, go on."""
        self.jobs.cancel_all()
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            for job in [job for job in self.jobs.running if job.stop is None]:
                await job.finished.wait()
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            async with anyio.create_task_group() as group:
                for vm_id in self._vms:
                    group.start_soon(self._delete, vm_id)

    async def _delete(self, vm_id: str) -> None:
        def work() -> None:
            with contextlib.suppress(PyroError):
                self.pyro.variant().delete_vm(vm_id)

        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _stop(stop: Callable[[int], object], number: int, _pyro: Pyro) -> object:
    return stop(number)


@contextlib.asynccontextmanager
async def open_service(pyro: Pyro, policy: Policy, spool_directory: Path | None) -> AsyncIterator[Service]:
    """A server's life; what it started and must not outlive it is gone afterwards."""
    directory = private_directory(spool_directory) if spool_directory else None
    async with anyio.create_task_group() as group:
        service = Service(pyro, policy, JobTable(group, directory))
        try:
            yield service
        finally:
            await service.close()
            service.jobs.abandon()
            service.jobs.close()
