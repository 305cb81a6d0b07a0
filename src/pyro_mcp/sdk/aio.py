"""``AsyncPyro``: the methods of ``Pyro`` for programs with an event loop (asyncio), each in a worker thread.

A call that is cancelled, by ``asyncio`` or by ``anyio``, ends its work: a command gets SIGTERM and, some seconds later,
SIGKILL, a download stops, a job is followed no further and goes on. What was made all the same is taken back: a machine
or a task is deleted, a job killed, a port unpublished; what was installed stays. Only when the thread has ended does
the cancellation go on. Callbacks such as *on_stdout* are called in the worker thread.
"""

import contextlib
import functools
import inspect
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread

from pyro_mcp.engine.tasks.results import TaskPort, TaskRecordResult
from pyro_mcp.errors import UnknownMachine, UnknownTask
from pyro_mcp.guest.control import Control
from pyro_mcp.host.progress import Stoppable
from pyro_mcp.model import VmRecord
from pyro_mcp.sdk.handles import alike, ending, on_id
from pyro_mcp.sdk.pyro import Pyro
from pyro_mcp.sdk.tasks import TaskJob

if TYPE_CHECKING:
    from pyro_mcp.engine.tasks.logs import Piece

P = ParamSpec("P")
R = TypeVar("R")
CALLS_AT_ONCE = 64


def awaited(
    method: Callable[Concatenate[Any, P], R],
    *,
    leaving: bool = False,
    undo: Callable[[Pyro, R], object] | None = None,
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """*method* of ``Pyro`` as one of ``AsyncPyro``: the same parameters, the same result, to be awaited.

    *leaving*: what is cancelled is following the job, and not the job. *undo*: what takes the result back that comes
    after the cancellation.
    """
    controlled = "control" in inspect.signature(method).parameters

    @functools.wraps(method)
    async def call(self: "AsyncPyro", /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not controlled:
            return await self.work(lambda pyro: method(pyro, *args, **kwargs), undo=undo)
        given: Any = kwargs.get("control")
        with Control() as own:
            more: Any = {**kwargs, "control": given or own}
            stop = more["control"].leave if leaving else more["control"].cancel
            return await self.work(lambda pyro: method(pyro, *args, **more), stop)

    return call


def opening_task(
    create: Callable[Concatenate[Any, P], Any],
) -> Callable[Concatenate[Any, P], AbstractAsyncContextManager["AsyncTask"]]:
    """``AsyncPyro.task``, with the parameters of *create*."""

    @contextlib.asynccontextmanager
    async def task(self: "AsyncPyro", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator["AsyncTask"]:
        """A task for an ``async with`` block, whose end deletes it; see ``create_task``."""
        made = await self.work(lambda pyro: create(pyro, *args, **kwargs), undo=_delete_task)
        async with AsyncTask(self, made["task_id"]) as opened:
            yield opened

    return alike(create, task)


def opening_vm(
    create: Callable[Concatenate[Any, P], Any],
) -> Callable[Concatenate[Any, P], AbstractAsyncContextManager["AsyncVm"]]:
    """``AsyncPyro.vm``, with the parameters of *create*."""

    @contextlib.asynccontextmanager
    async def vm(self: "AsyncPyro", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator["AsyncVm"]:
        """A started machine for an ``async with`` block, whose end deletes it; see ``create_vm``."""
        owner = AsyncPyro(self.pyro.variant(own_vms=True))
        made = await owner.work(lambda pyro: create(pyro, *args, **kwargs), undo=_delete_vm)
        async with AsyncVm(owner, made["vm_id"]) as opened:
            await opened.start()
            yield opened

    return alike(create, vm)


def _delete_task(pyro: Pyro, made: TaskRecordResult) -> None:
    pyro.delete_task(made["task_id"])


def _delete_vm(pyro: Pyro, made: VmRecord) -> None:
    pyro.delete_vm(made["vm_id"])


def _kill_job(pyro: Pyro, made: TaskJob) -> None:
    pyro.signal_task_job(made["task_id"], made["job_id"], signal.SIGKILL, scope="all")


def _unpublish(pyro: Pyro, made: TaskPort) -> None:
    from pyro_mcp.engine.publish.ports import Port  # as Pyro does: who publishes nothing does not wait for it

    port = Port(made["host_port"], made["guest_port"], made["address"])
    pyro.unpublish_task(made["task_id"], port.place)


class AsyncPyro:
    """One user's machines, tasks and environments. *pyro*: what it works with, or ``Pyro``'s parameters.

    The methods are those of ``Pyro``; what they raise is the same, too.
    """

    def __init__(self, pyro: Pyro | None = None, **options: Any) -> None:  # noqa: ANN401 - those of Pyro
        self.pyro = pyro or Pyro(**options)
        self._limiter = anyio.CapacityLimiter(CALLS_AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    @property
    def busy(self) -> int:
        """How many calls are at work in threads."""
        return self._limiter.borrowed_tokens

    close = awaited(Pyro.close)
    wait_for_pool = awaited(Pyro.wait_for_pool)
    doctor = awaited(Pyro.doctor)

    list_environments = awaited(Pyro.list_environments)
    inspect_environment = awaited(Pyro.inspect_environment)
    pull_environment = awaited(Pyro.pull_environment)
    import_environment = awaited(Pyro.import_environment)
    export_environment = awaited(Pyro.export_environment)
    verify_environments = awaited(Pyro.verify_environments)
    publish_environment = awaited(Pyro.publish_environment)
    pinned_environments = awaited(Pyro.pinned_environments)
    prune_environments = awaited(Pyro.prune_environments)

    list_templates = awaited(Pyro.list_templates)
    build_template = awaited(Pyro.build_template)
    prune_templates = awaited(Pyro.prune_templates)
    list_runtime = awaited(Pyro.list_runtime)
    verify_runtime = awaited(Pyro.verify_runtime)
    install_runtime = awaited(Pyro.install_runtime)

    create_vm = awaited(Pyro.create_vm, undo=_delete_vm)
    start_vm = awaited(Pyro.start_vm)
    exec_vm = awaited(Pyro.exec_vm)
    stop_vm = awaited(Pyro.stop_vm)
    delete_vm = awaited(Pyro.delete_vm)
    status_vm = awaited(Pyro.status_vm)
    network_info_vm = awaited(Pyro.network_info_vm)
    reap_expired = awaited(Pyro.reap_expired)
    run_in_vm = awaited(Pyro.run_in_vm)

    create_task = awaited(Pyro.create_task, undo=_delete_task)
    push_task_sync = awaited(Pyro.push_task_sync)
    pull_task_sync = awaited(Pyro.pull_task_sync)
    exec_task = awaited(Pyro.exec_task)
    start_task_job = awaited(Pyro.start_task_job, undo=_kill_job)
    attach_task_job = awaited(Pyro.attach_task_job, leaving=True)
    wait_task_job = awaited(Pyro.wait_task_job, leaving=True)
    signal_task_job = awaited(Pyro.signal_task_job)
    status_task = awaited(Pyro.status_task)
    logs_task = awaited(Pyro.logs_task)
    delete_task = awaited(Pyro.delete_task)
    list_tasks = awaited(Pyro.list_tasks)
    extend_task = awaited(Pyro.extend_task)
    publish_task = awaited(Pyro.publish_task, undo=_unpublish)
    unpublish_task = awaited(Pyro.unpublish_task)

    async def follow_task(self, task_id: str, *, last: int | None = None) -> "AsyncIterator[Piece]":
        """See ``Pyro.follow_task``; it ends with the loop over it."""
        ended = threading.Event()
        pieces = self.pyro.follow_task(task_id, stopped=ended.is_set, last=last)
        try:
            while (piece := await self.work(lambda _pyro: next(pieces, None), ended.set)) is not None:
                yield piece
        finally:
            ended.set()

    task = opening_task(Pyro.create_task)
    vm = opening_vm(Pyro.create_vm)

    async def work(
        self,
        work: Callable[[Pyro], R],
        stop: Callable[[], object] | None = None,
        *,
        undo: Callable[[Pyro, R], object] | None = None,
    ) -> R:
        """Do *work* in a thread.

        When this call is cancelled, *stop* is called, the work ends at its next news, and its end is waited for; a
        result that comes all the same is taken back with *undo*.
        """
        news = Stoppable(self.pyro.progress)
        pyro = self.pyro.variant(progress=news)
        done: Future[R] = Future()

        def end() -> None:
            news.stop()
            if stop is not None:
                stop()

        try:
            # Nothing is awaited here but the end of both: a cancellation by asyncio strikes only this task.
            async with anyio.create_task_group() as group:
                group.start_soon(_when_cancelled, end, done)
                group.start_soon(self._in_thread, done, work, pyro, group.cancel_scope)
        except BaseException:
            if undo is not None and done.done() and done.exception() is None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(undo, self.pyro, done.result())
            raise
        return done.result()

    async def _in_thread(self, done: Future[R], work: Callable[[Pyro], R], pyro: Pyro, both: anyio.CancelScope) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_fulfil, done, work, pyro, limiter=self._limiter)
        both.cancel()


class AsyncTask:
    """A task, as ``pyro_mcp.sdk.handles.Task`` is, with methods to be awaited."""

    def __init__(self, pyro: AsyncPyro, task_id: str) -> None:
        self.pyro = pyro
        self.id = task_id

    exec = on_id(AsyncPyro.exec_task)
    start_job = on_id(AsyncPyro.start_task_job)
    attach_job = on_id(AsyncPyro.attach_task_job)
    signal_job = on_id(AsyncPyro.signal_task_job)
    wait_job = on_id(AsyncPyro.wait_task_job)
    push = on_id(AsyncPyro.push_task_sync)
    pull = on_id(AsyncPyro.pull_task_sync)
    status = on_id(AsyncPyro.status_task)
    logs = on_id(AsyncPyro.logs_task)
    follow = on_id(AsyncPyro.follow_task)
    extend = on_id(AsyncPyro.extend_task)
    publish = on_id(AsyncPyro.publish_task)
    unpublish = on_id(AsyncPyro.unpublish_task)
    delete = on_id(AsyncPyro.delete_task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True), ending(error, UnknownTask):
            await self.delete()


class AsyncVm:
    """A machine, as ``pyro_mcp.sdk.handles.Vm`` is, with methods to be awaited."""

    def __init__(self, pyro: AsyncPyro, vm_id: str) -> None:
        self.pyro = pyro
        self.id = vm_id

    start = on_id(AsyncPyro.start_vm)
    exec = on_id(AsyncPyro.exec_vm)
    stop = on_id(AsyncPyro.stop_vm)
    status = on_id(AsyncPyro.status_vm)
    network_info = on_id(AsyncPyro.network_info_vm)
    delete = on_id(AsyncPyro.delete_vm)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True), ending(error, UnknownMachine):
            await self.delete()


async def _when_cancelled(end: Callable[[], None], done: Future[Any]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        if not done.done():
            end()


def _fulfil(done: Future[R], work: Callable[[Pyro], R], pyro: Pyro) -> None:
    """Do *work*; what comes of it is kept, so that no exception has to pass through the task group."""
    try:
        done.set_result(work(pyro))
    except BaseException as error:  # noqa: BLE001 - whoever awaits gets it
        done.set_exception(error)
