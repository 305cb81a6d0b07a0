"""The SDK with real guests: the code of its page, and many threads on one task."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyro_mcp import AsyncPyro, Pyro
from pyro_mcp.paths import Paths
from pyro_mcp.sdk.aio import AsyncTask

from .conftest import ROOT

pytestmark = pytest.mark.guest

CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = """Linux
 3 qemu
137 ['signal']
kept

4
started one command, then the machine is gone

['0\\n', '1\\n', '2\\n']
"""


def test_the_code_of_the_page_does_what_it_says(home: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(found["code"] for found in CODE.finditer((ROOT / "docs" / "sdk.md").read_text()))
    exec(compile(code, "docs/sdk.md", "exec"), {"__name__": "page"})  # noqa: S102 - the page's own examples
    assert capsys.readouterr().out == PRINTED
    assert Pyro().list_tasks()["tasks"] == []


def test_many_threads_work_in_one_task_and_each_gets_its_own_output(home: Paths) -> None:
    pyro = Pyro()
    with pyro.task(environment="debian:12") as task, ThreadPoolExecutor(8) as threads:

        def work(number: int) -> tuple[str, str]:
            pieces: list[bytes] = []
            done = task.exec(f"yes {number} | head -c 200000 | tail -c 2", on_stdout=pieces.append)
            return done["stdout"], b"".join(pieces).decode()

        assert list(threads.map(work, range(8))) == [(f"{number}\n", f"{number}\n") for number in range(8)]
        assert task.logs()["count"] == 8


def setter(event: asyncio.Event) -> Callable[[bytes], None]:
    """A callback for another thread that sets *event*."""
    loop = asyncio.get_running_loop()

    def tell(_data: bytes) -> None:
        loop.call_soon_threadsafe(event.set)

    return tell


async def waiting_calls(
    task: AsyncTask, job: str, heard: Callable[[bytes], None]
) -> AsyncIterator[tuple[str, "asyncio.Task[object]"]]:
    """Calls that wait for *job*, one after the other, each of them at it."""

    async def follow() -> None:
        async for piece in task.follow():
            heard(piece.stdout)

    yield "attach", asyncio.create_task(task.attach_job(job, on_stdout=heard))
    yield "follow", asyncio.create_task(follow())
    yield "wait", asyncio.create_task(task.wait_job(job))


def test_a_cancelled_call_that_follows_a_job_leaves_the_job_and_no_thread(home: Paths) -> None:
    async def session() -> None:
        async with AsyncPyro() as pyro, pyro.task(environment="debian:12") as task:
            job = (await task.start_job("echo begun; sleep 1000; echo done"))["job_id"]
            async for name, call in waiting_calls(task, job, setter(begun)):
                if name != "wait":  # which hears nothing
                    await begun.wait()
                    begun.clear()
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert pyro.busy == 0, f"the thread of {name} is still at work"
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(task.wait_job(job), 0.1)
            assert (await task.status())["running_count"] == 1
            assert (await task.exec("echo on"))["stdout"] == "on\n"

    begun = asyncio.Event()
    asyncio.run(session())


def test_a_cancelled_command_of_a_task_has_ended_when_the_cancellation_goes_on(home: Paths) -> None:
    async def session() -> None:
        async with AsyncPyro() as pyro, pyro.task(environment="debian:12") as task:
            begun = asyncio.Event()
            call = asyncio.create_task(task.exec("echo begun; sleep 1000", on_stdout=setter(begun)))
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert pyro.busy == 0
            status = await task.status()
            assert status["running_count"] == 0
            assert status["last_command"] is not None
            assert status["last_command"]["exit_code"] == 143

    asyncio.run(session())


async def cancelled_at_work(pyro: AsyncPyro, call: "asyncio.Task[object]") -> None:
    """Cancel *call* while its thread is at something that no cancellation stops."""
    while not pyro.busy:  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pyro.busy == 0


def test_a_job_that_starts_although_its_call_was_cancelled_is_killed(home: Paths) -> None:
    async def session() -> None:
        async with AsyncPyro() as pyro, pyro.task(environment="debian:12") as task:
            await cancelled_at_work(pyro, asyncio.create_task(task.start_job("sleep 1000 & wait")))
            (entry,) = (await task.logs())["entries"]
            ended = await task.wait_job(entry["job_id"], timeout_seconds=60)
            assert (ended["state"], ended["exit_code"]) == ("done", 137)
            assert (await task.exec("cat /proc/[0-9]*/comm | grep -c sleep"))["stdout"] == "0\n"

    asyncio.run(session())


def test_a_port_that_is_published_although_its_call_was_cancelled_is_taken_back(home: Paths) -> None:
    async def session() -> None:
        async with AsyncPyro() as pyro, pyro.task(environment="debian:12") as task:
            kept = await task.publish("0:80")
            for address in ("127.0.0.1", "[::1]"):
                await cancelled_at_work(pyro, asyncio.create_task(task.publish(f"{address}:0:80")))
            left = (await task.status())["published_ports"]
            assert [port["host_port"] for port in left] == [kept["host_port"]]

    asyncio.run(session())
