"""Tasks and machines as objects: ``with pyro.task(environment="debian:12") as task: task.exec("make test")``.

Their methods are those of ``Pyro`` without the id: same parameters, same results.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from pyro_mcp.errors import PyroError, UnknownMachine, UnknownTask
from pyro_mcp.sdk.machines import MachineMethods
from pyro_mcp.sdk.tasks import TaskMethods

P = ParamSpec("P")
R = TypeVar("R")


def on_id(method: Callable[Concatenate[Any, str, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of a handle: the one of the same name of its ``pyro``, for its ``id``."""
    name = method.__name__

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ANN401 - Task, Vm, and their async forms
        result: R = getattr(self.pyro, name)(self.id, *args, **kwargs)
        return result

    functools.update_wrapper(call, method)
    signature = inspect.signature(method)
    myself, _id, *others = signature.parameters.values()
    vars(call)["__signature__"] = signature.replace(parameters=[myself, *others])
    return call


class Task:
    """A task. A ``with`` block that ends deletes it; without one it lives on, as every task does.

    ``Pyro.task`` makes one; ``Task(pyro, "name")`` is one that is there.
    """

    def __init__(self, pyro: TaskMethods, task_id: str) -> None:
        self.pyro = pyro
        self.id = task_id

    exec = on_id(TaskMethods.exec_task)
    start_job = on_id(TaskMethods.start_task_job)
    attach_job = on_id(TaskMethods.attach_task_job)
    signal_job = on_id(TaskMethods.signal_task_job)
    wait_job = on_id(TaskMethods.wait_task_job)
    push = on_id(TaskMethods.push_task_sync)
    pull = on_id(TaskMethods.pull_task_sync)
    status = on_id(TaskMethods.status_task)
    logs = on_id(TaskMethods.logs_task)
    follow = on_id(TaskMethods.follow_task)
    extend = on_id(TaskMethods.extend_task)
    publish = on_id(TaskMethods.publish_task)
    unpublish = on_id(TaskMethods.unpublish_task)
    delete = on_id(TaskMethods.delete_task)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ending(error, UnknownTask):
            self.delete()


class Vm:
    """A started machine, which dies with this process at the latest; a ``with`` block that ends deletes it.

    ``Pyro.vm`` makes one; ``Vm(pyro, vm_id)`` is one that is there. ``exec`` runs its one command and deletes it.
    """

    def __init__(self, pyro: MachineMethods, vm_id: str) -> None:
        self.pyro = pyro
        self.id = vm_id

    start = on_id(MachineMethods.start_vm)
    exec = on_id(MachineMethods.exec_vm)
    stop = on_id(MachineMethods.stop_vm)
    status = on_id(MachineMethods.status_vm)
    network_info = on_id(MachineMethods.network_info_vm)
    delete = on_id(MachineMethods.delete_vm)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ending(error, UnknownMachine):
            self.delete()


@contextlib.contextmanager
def ending(error: BaseException | None, gone: type[PyroError]) -> Iterator[None]:
    """A deletion after the block that *error* ended: what is gone is gone, and a failure does not hide that error."""
    try:
        yield
    except gone:
        return
    except PyroError as failure:
        if error is None:
            raise
        error.add_note(f"and afterwards the deletion failed: {failure}")


def making_task(
    create: Callable[Concatenate[Any, P], Any],
) -> Callable[Concatenate[Any, P], Task]:
    """``Pyro.task``, with the parameters of *create*."""

    def task(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Task:  # noqa: ANN401 - Pyro, which is made of this
        """Make a task and start it; see ``create_task``. The end of a ``with`` block deletes it."""
        return Task(self, create(self, *args, **kwargs)["task_id"])

    return alike(create, task)


def making_vm(create: Callable[Concatenate[Any, P], Any]) -> Callable[Concatenate[Any, P], Vm]:
    """``Pyro.vm``, with the parameters of *create*."""

    def vm(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Vm:  # noqa: ANN401 - Pyro, which is made of this
        """Make a machine and start it; see ``create_vm``. The end of a ``with`` block deletes it."""
        owner = self.variant(own_vms=True)
        made = Vm(owner, create(owner, *args, **kwargs)["vm_id"])
        try:
            made.start()
        except BaseException as error:
            with ending(error, UnknownMachine):
                made.delete()
            raise
        return made

    return alike(create, vm)


def alike(model: Callable[..., object], function: Callable[P, R]) -> Callable[P, R]:
    """*function*, which says that it takes what *model* takes."""
    result = inspect.signature(function).return_annotation
    vars(function)["__signature__"] = inspect.signature(model).replace(return_annotation=result)
    return function
