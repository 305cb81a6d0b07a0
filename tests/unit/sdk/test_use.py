"""The SDK at work on a host without any VMM, where commands run on the host itself: handles, threads, event loops."""

import asyncio
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import anyio
import pytest

from pyro_mcp import AsyncPyro, Control, Pyro
from pyro_mcp.engine.store import Store
from pyro_mcp.errors import Interrupted, InvalidRequest, MachineExpired, UnknownMachine, UnknownTask
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import aio

pytestmark = pytest.mark.usefixtures("no_vmm")

THREADS = 12
MACHINE: dict[str, Any] = {"environment": "debian:12", "allow_host_compat": True}


@pytest.fixture
def pyro(no_vmm: Paths) -> Pyro:
    return Pyro()


def test_a_machine_is_deleted_at_the_end_of_its_block(pyro: Pyro) -> None:
    with pyro.vm(**MACHINE) as vm:
        assert vm.status()["state"] == "started"
        assert vm.network_info()["network_enabled"] is False
        vm.stop()
        vm.start()
    with pytest.raises(UnknownMachine):
        vm.status()


def test_a_machine_whose_command_has_deleted_it_is_no_failure(pyro: Pyro) -> None:
    with pyro.vm(**MACHINE) as vm:
        assert vm.exec("echo out")["stdout"] == "out\n"


def test_an_error_in_the_block_is_the_one_that_is_seen(pyro: Pyro) -> None:
    with pytest.raises(ZeroDivisionError), pyro.vm(**MACHINE) as vm:
        raise ZeroDivisionError
    with pytest.raises(UnknownMachine):
        vm.status()


@pytest.mark.parametrize("beside_tasks", [False, True])
def test_what_the_first_use_deletes_for_its_age_is_told(pyro: Pyro, no_vmm: Paths, *, beside_tasks: bool) -> None:
    if beside_tasks:
        no_vmm.tasks.mkdir(parents=True)
    vm_id = pyro.create_vm(**MACHINE)["vm_id"]
    store = Store(no_vmm.database)
    store.update(replace(store.get(vm_id), expires_at=1.0))
    fresh = Pyro()
    for _ in range(2):
        with pytest.raises(MachineExpired, match=f"{vm_id} expired and was automatically deleted"):
            fresh.status_vm(vm_id)
    for use in (fresh.start_vm, fresh.stop_vm, fresh.network_info_vm, functools.partial(fresh.exec_vm, command="id")):
        with pytest.raises(MachineExpired):
            use(vm_id)
    assert fresh.reap_expired() == {"deleted_vm_ids": [vm_id], "count": 1}
    assert fresh.reap_expired() == {"deleted_vm_ids": [], "count": 0}
    for other in (fresh, Pyro()):
        with pytest.raises(UnknownMachine):
            other.status_vm(vm_id)


def test_output_streams_into_callbacks(pyro: Pyro) -> None:
    out: list[bytes] = []
    err: list[bytes] = []
    result = pyro.run_in_vm(
        **MACHINE, command="echo one; echo two >&2; exit 3", on_stdout=out.append, on_stderr=err.append
    )
    assert (b"".join(out), b"".join(err), result["exit_code"]) == (b"one\n", b"two\n", 3)


def test_many_threads_use_one_pyro_from_its_first_use_on(pyro: Pyro) -> None:
    together = threading.Barrier(THREADS)

    def work(number: int) -> str:
        together.wait(30)
        made = pyro.create_vm(**MACHINE)
        pyro.start_vm(made["vm_id"])
        pyro.list_environments()
        assert pyro.status_vm(made["vm_id"])["state"] == "started"
        return pyro.exec_vm(made["vm_id"], f"echo {number}")["stdout"]

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work, range(THREADS))) == [f"{number}\n" for number in range(THREADS)]
    assert list(pyro.state_directory.glob("machines/*")) == []


def test_awaited_calls_run_beside_each_other(pyro: Pyro) -> None:
    together = threading.Barrier(4)
    results: list[str] = []

    def meet(_data: bytes) -> None:
        together.wait(30)

    async def one(front: AsyncPyro, number: int) -> None:
        done = await front.run_in_vm(**MACHINE, command=f"echo {number}", on_stdout=meet)
        results.append(done["stdout"])

    async def session() -> None:
        async with AsyncPyro(pyro) as front, anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, front, number)

    anyio.run(session)
    assert sorted(results) == ["0\n", "1\n", "2\n", "3\n"]


def test_what_an_awaited_call_raises_is_what_the_call_raises(pyro: Pyro) -> None:
    async def session() -> None:
        with pytest.raises(InvalidRequest, match="vcpu_count"):
            await AsyncPyro(pyro).run_in_vm(**MACHINE, command="true", vcpu_count=9)
        with pytest.raises(UnknownTask):
            await AsyncPyro(pyro).wait_task_job("nosuch", "0" * 16)
        with pytest.raises(UnknownTask):
            async for _piece in AsyncPyro(pyro).follow_task("nosuch"):
                pass

    anyio.run(session)


TELLS = "echo $$; exec sleep 100"


def alive(told: bytes) -> ProcessId:
    """The process of a command that has told its number: on the host it is the host's own."""
    found = ProcessId.of(int(told))
    assert found is not None
    return found


def test_a_cancelled_call_ends_its_command_first(pyro: Pyro) -> None:
    told: queue.Queue[bytes] = queue.Queue()

    async def session() -> None:
        async with anyio.create_task_group() as group:
            call = functools.partial(AsyncPyro(pyro).run_in_vm, **MACHINE, command=TELLS, on_stdout=told.put)
            group.start_soon(call)
            command = alive(await anyio.to_thread.run_sync(told.get, True, 30))
            group.cancel_scope.cancel()
        assert not command.alive
        assert list(pyro.state_directory.glob("machines/*")) == []

    anyio.run(session)


def test_a_call_cancelled_by_asyncio_ends_its_command_first(pyro: Pyro) -> None:
    async def session() -> None:
        told: queue.Queue[bytes] = queue.Queue()
        call = asyncio.create_task(AsyncPyro(pyro).run_in_vm(**MACHINE, command=TELLS, on_stdout=told.put))
        command = alive(await asyncio.to_thread(told.get, True, 30))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not command.alive
        assert list(pyro.state_directory.glob("machines/*")) == []

    asyncio.run(session())


@pytest.mark.parametrize("kind", ["vm", "task"])
def test_what_is_made_although_its_call_was_cancelled_is_deleted(pyro: Pyro, kind: str) -> None:
    """The cancellation comes while the call is at its very end, where nothing stops it any more."""

    def create(some: Pyro) -> Any:  # noqa: ANN401 - what the call returns
        made = some.create_vm(**MACHINE) if kind == "vm" else some.create_task(**MACHINE)
        working.set()
        assert cancelled.wait(30)
        return made

    working, cancelled = threading.Event(), threading.Event()

    async def session() -> None:
        front = AsyncPyro(pyro)
        undo = aio._delete_vm if kind == "vm" else aio._delete_task
        call = asyncio.create_task(front.work(create, cancelled.set, undo=undo))
        await asyncio.to_thread(working.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(session())
    assert pyro.list_tasks()["tasks"] == []
    assert list(pyro.state_directory.glob("machines/*")) == []


def test_a_call_that_waits_for_nothing_but_news_ends_at_the_next(pyro: Pyro) -> None:
    working = threading.Event()
    ended: list[type[BaseException]] = []

    def work(some: Pyro) -> None:
        working.set()
        try:
            while True:
                some.progress.note("on it")
        except Interrupted as error:
            ended.append(type(error))
            raise

    async def session() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(AsyncPyro(pyro).work, work)
            await anyio.to_thread.run_sync(working.wait, 30)
            group.cancel_scope.cancel()

    anyio.run(session)
    assert ended == [Interrupted]


def test_the_callers_own_control_goes_on_to_work(pyro: Pyro) -> None:
    async def session() -> int:
        with Control() as control:
            done = await AsyncPyro(pyro).run_in_vm(
                **MACHINE, command="exec sleep 100", control=control, on_started=lambda: control.signal(9)
            )
        return done["exit_code"]

    assert anyio.run(session) == 137


def test_a_machine_of_an_event_loop_is_deleted_at_the_end_of_its_block(pyro: Pyro) -> None:
    async def session() -> str:
        async with AsyncPyro(pyro, progress=Silent()) as front, front.vm(**MACHINE) as vm:
            assert (await vm.status())["state"] == "started"
            return vm.id

    vm_id = anyio.run(session)
    with pytest.raises(UnknownMachine):
        pyro.status_vm(vm_id)


BIG = "x" * 10_000_000
# What no parameter that is a text, a number or a path takes; a text that some parameter takes is harmless.
STRANGE: dict[str, Any] = {
    "10 MB": BIG,
    "newline": "a\nb",
    "NUL": "a\0b",
    "no character": "\udcff",
    "None": None,
    "list": ["a"],
    "record": {"task_id": "0" * 12},
    "bytes": b"x",
}

NAMES_A_TASK = {"task", "deleted task", "task of a command"}
# A command may have lines and bytes that are no text, and hosts are a list.
GOOD = {("command", "newline"), ("command", "no character"), ("hosts", "list")}


def strange_calls(pyro: Pyro, bad: Any) -> dict[str, Callable[[], object]]:  # noqa: ANN401 - that is the point
    """A call for every method that takes something, with *bad* for it; where ``None`` is good, with a number."""
    wrong: Any = 5 if bad is None else bad
    run = functools.partial(pyro.run_in_vm, **MACHINE)
    return {
        "environment": lambda: pyro.inspect_environment(bad),
        "name of an import": lambda: pyro.import_environment("/nowhere", name=bad),
        "path of an import": lambda: pyro.import_environment(bad, name="mine:1"),
        "layout": lambda: pyro.publish_environment(bad, "localhost/x:1"),
        "environment of a run": lambda: pyro.run_in_vm(environment=bad, command="true"),
        "command": lambda: run(command=bad),
        "cwd": lambda: run(command="true", cwd=wrong),
        "user": lambda: run(command="true", user=wrong),
        "timeout": lambda: run(command="true", timeout_seconds=bad),
        "cpus": lambda: run(command="true", vcpu_count=bad),
        "driver": lambda: run(command="true", driver=bad),
        "isolation": lambda: run(command="true", require_isolation=bad),
        "ports": lambda: run(command="true", publish=bad),
        "hosts": lambda: run(command="true", allow_hosts=bad),
        "one host": lambda: run(command="true", allow_hosts=[bad]),
        "name of a task": lambda: pyro.create_task(**MACHINE, name=wrong),
        "label": lambda: pyro.create_task(**MACHINE, labels={"label": bad}),
        "age": lambda: pyro.prune_environments(older_than_seconds=wrong if bad is not None else -1),
        "machine": lambda: pyro.status_vm(bad),
        "deleted machine": lambda: pyro.delete_vm(bad),
        "task": lambda: pyro.status_task(bad),
        "deleted task": lambda: pyro.delete_task(bad),
        "task of a command": lambda: pyro.exec_task(bad, command="true"),
        "source": lambda: pyro.push_task_sync("work", bad),
        "job": lambda: pyro.wait_task_job("work", bad),
        "attached job": lambda: pyro.attach_task_job("work", bad),
        "signal": lambda: pyro.signal_task_job("work", "0" * 16, bad),
        "port": lambda: pyro.publish_task("work", bad),
        "taken back port": lambda: pyro.unpublish_task("work", bad),
        "longer life": lambda: pyro.extend_task("work", ttl_seconds=wrong),
    }


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_argument_is_a_short_value_error(what: str, pyro: Pyro) -> None:
    work = pyro.create_task(**MACHINE, name="work")
    machines = sorted(pyro.state_directory.glob("machines/*"))
    for name, call in strange_calls(pyro, STRANGE[what]).items():
        if (name, what) in GOOD:
            continue
        with pytest.raises(InvalidRequest) as refused:
            call()
        assert len(refused.value.cause) < 400, name
        assert name in NAMES_A_TASK or not isinstance(refused.value, UnknownTask), name
    assert sorted(pyro.state_directory.glob("machines/*")) == machines
    assert [task["task_id"] for task in pyro.list_tasks()["tasks"]] == [work["task_id"]]
    pyro.delete_task("work")


def test_input_that_is_text_is_refused_with_a_remedy(pyro: Pyro) -> None:
    text: Any = "text"
    with pytest.raises(InvalidRequest, match="stdin is a descriptor"):
        pyro.run_in_vm(**MACHINE, command="cat", stdin=text)
