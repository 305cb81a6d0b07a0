"""The MCP server as a process of its own, with real guests, used by the SDK's own client."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import until
from pyro_mcp.mcp_server.failures import ERROR_KEY
from pyro_mcp.mcp_server.profiles import TOOLS
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

from .conftest import leftovers, pyro_argv

pytestmark = [
    pytest.mark.guest,
    pytest.mark.filterwarnings("ignore:ping is removed"),  # it is what this tests, in the era that has it
]

PINGS = 20
OUTPUT_BYTES = 5_000_000
Era = Literal["auto", "legacy"]
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


@pytest.fixture(autouse=True)
def no_task_stays(home: Paths) -> Iterator[None]:
    """Tasks outlive servers, and tests that fail."""
    yield
    pyro = Pyro()
    for task in pyro.list_tasks()["tasks"]:
        pyro.delete_task(task["task_id"])


def parameters(home: Paths, *words: str) -> StdioServerParameters:
    """How a client starts the server: with few variables, in a directory whose files may be pushed."""
    argv = pyro_argv(["mcp", "serve", *words])
    project = home.state.parent / "project"
    project.mkdir(exist_ok=True)
    env = {name: os.environ[name] for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
    return StdioServerParameters(command=argv[0], args=argv[1:], env=env, cwd=project)


def project_of(home: Paths) -> Path:
    return home.state.parent / "project"


@asynccontextmanager
async def stdio(home: Paths, *words: str, era: Era = "auto") -> AsyncIterator[Client]:
    async with Client(parameters(home, *words), mode=era) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def code_of(result: CallToolResult) -> str:
    """The code of a call that failed."""
    assert result.meta is not None
    return str(result.meta[ERROR_KEY]["code"])


async def value(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """The structured result of a call that succeeds."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def vmms(home: Paths) -> list[ProcessId]:
    records, _ = Store(home.database).all()
    return [pid for record in records if record.running for pid in (record.running.launcher, record.running.vmm)]


@ERAS
def test_a_task_from_its_creation_to_its_deletion(home: Paths, era: Era) -> None:
    async def session() -> None:
        async with stdio(home, era=era) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS["full"])
            source = project_of(home) / "src"
            source.mkdir()
            (source / "hello.sh").write_text("echo hello from $PWD\n")
            made = await value(client, "task_create", environment="debian:12", source_path="src", name="one")
            assert (made["state"], made["workspace_seed"]["mode"]) == ("started", "directory")
            done = await value(client, "task_exec", task_id="one", command="sh hello.sh; echo kept > file")
            assert (done["exit_code"], done["stdout"]) == (0, "hello from /workspace\n")
            (source / "more").write_text("more\n")
            pushed = await value(
                client, "task_sync_push", task_id="one", source_path=str(source), dest="/workspace/sub"
            )
            assert pushed["workspace_sync"]["destination"] == "/workspace/sub"
            done = await value(
                client, "task_exec", task_id=made["task_id"], command="cat file sub/more; cat", stdin="in"
            )
            assert done["stdout"] == "kept\nmore\nin"
            status = await value(client, "task_status", task_id="one")
            assert (status["command_count"], status["last_command"]["sequence"]) == (2, 2)
            logs = await client.call_tool("task_logs", {"task_id": "one"})
            assert "$ sh hello.sh" in text_of(logs)
            listed = await value(client, "task_list")
            assert [task["task_id"] for task in listed["tasks"]] == [made["task_id"]]
            await value(client, "task_delete", task_id="one")
            gone = await client.call_tool("task_status", {"task_id": "one"})
            assert code_of(gone) == "unknown_task"

    anyio.run(session)


def test_a_job_is_started_read_waited_for_and_survives_the_server(home: Paths) -> None:
    async def first() -> tuple[str, str]:
        async with stdio(home) as client:
            task = await value(client, "task_create", environment="debian:12")
            job = await value(
                client,
                "job_start",
                task_id=task["task_id"],
                command="for i in 1 2 3 4; do echo $i; sleep 1; done; exit 7",
            )
            assert job["status"] == "running"
            read = {"text": ""}
            while "1\n" not in read["text"]:
                read = await value(client, "job_read", job_id=job["job_id"])
            waited = await value(client, "job_wait", job_id=job["job_id"], timeout_seconds=0)
            assert waited["status"] == "running"
            return task["task_id"], job["job_id"]

    async def second(task: str, job: str) -> None:
        async with stdio(home) as client:
            unknown = await client.call_tool("job_wait", {"job_id": job})
            assert "task_id" in text_of(unknown)
            done = await value(client, "job_wait", job_id=job, task_id=task)
            assert (done["exit_code"], done["stdout"]) == (7, "1\n2\n3\n4\n")
            endless = await value(
                client, "job_start", task_id=task, command="trap '' TERM; echo up; while :; do sleep 1; done"
            )
            read = {"text": ""}
            while "up\n" not in read["text"]:
                read = await value(client, "job_read", job_id=endless["job_id"])
            cancelled = await value(client, "job_cancel", job_id=endless["job_id"])
            assert cancelled["status"] in ("completed", "cancelled")
            assert cancelled["exit_code"] == 137
            await value(client, "task_delete", task_id=task)

    anyio.run(second, *anyio.run(first))


def test_pings_are_answered_while_a_command_runs(home: Paths) -> None:
    """The command ends only by being cancelled: a server that answered after it would answer none of the pings."""
    took: list[float] = []

    async def session() -> None:
        async with stdio(home, era="legacy") as client, anyio.create_task_group() as group:
            await value(client, "vm_run", environment="debian:12", command="true")  # the template is there now
            answered = anyio.Event()

            async def run() -> None:
                await client.call_tool("vm_run", {"environment": "debian:12", "command": "sleep 1000"})
                answered.set()

            group.start_soon(run)
            while not run_begun(home):  # noqa: ASYNC110 - another process does it
                await anyio.sleep(0.05)
            for _ in range(PINGS):
                began = time.monotonic()
                await client.send_ping()  # type: ignore[deprecated, unused-ignore]
                took.append(time.monotonic() - began)
                assert not answered.is_set()
                await anyio.sleep(0.4)
            assert run_begun(home)
            group.cancel_scope.cancel()

    anyio.run(session)
    assert len(took) == PINGS
    figures = sorted(round(seconds * 1000, 1) for seconds in took)
    sys.stdout.write(f"{PINGS} pings during a vm_run, ms: {figures}\n")


@ERAS
def test_a_cancelled_call_ends_its_machine(home: Paths, era: Era) -> None:
    async def session() -> None:
        async with stdio(home, era=era) as client:
            with anyio.move_on_after(60) as limit:
                async with anyio.create_task_group() as group:
                    group.start_soon(client.call_tool, "vm_run", {"environment": "debian:12", "command": "sleep 100"})
                    while not vmms(home):  # noqa: ASYNC110 - other processes make and remove them
                        await anyio.sleep(0.05)
                    group.cancel_scope.cancel()
                while leftovers(home):  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            assert not limit.cancelled_caught
            assert (await value(client, "vm_run", environment="debian:12", command="echo on"))["stdout"] == "on\n"

    anyio.run(session)


def run_begun(home: Paths) -> bool:
    """Whether the run's machine has come up, booted or resumed."""
    return any(record.state == "started" for record in Store(home.database).all()[0])


@contextmanager
def raw_server(home: Paths) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the middle of a run, by a client that speaks the bare protocol."""
    given = parameters(home)
    hello = (
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        b'"clientInfo":{"name":"t","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"vm_create","arguments":'
        b'{"environment":"debian:12"}}}\n'
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"vm_run","arguments":'
        b'{"environment":"debian:12","command":"sleep 100"}}}\n'
    )
    pipe = subprocess.PIPE
    argv = [given.command, *given.args]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=given.cwd) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(hello)
            process.stdin.flush()
            assert until(lambda: run_begun(home), Deadline.after(120))
            yield process
        finally:
            process.kill()


def vanish(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()


ENDS: dict[str, Callable[[subprocess.Popen[bytes]], object]] = {
    "client vanishes": vanish,
    "SIGTERM": lambda process: process.send_signal(signal.SIGTERM),
    "SIGINT": lambda process: process.send_signal(signal.SIGINT),
    "SIGKILL": lambda process: process.send_signal(signal.SIGKILL),
}


@pytest.mark.parametrize("end", sorted(ENDS))
def test_however_a_server_ends_in_mid_call_nothing_of_it_stays(home: Paths, end: str) -> None:
    with raw_server(home) as process:
        machines = vmms(home)
        began = time.monotonic()
        ENDS[end](process)
        process.wait(15)
        sys.stdout.write(f"{end}: exit {process.returncode} after {time.monotonic() - began:.2f} s\n")
    assert until(lambda: not any(pid.alive for pid in machines) and not leftovers(home), Deadline.after(10))
    if end == "SIGKILL":
        Pyro().reap_expired()  # the records of the dead go with any use
    assert Store(home.database).all() == ([], [])


def test_five_megabytes_of_output_are_bounded_and_readable(home: Paths) -> None:
    async def session() -> None:
        async with stdio(home) as client:
            result = await client.call_tool(
                "vm_run", {"environment": "debian:12", "command": f"yes 0123456 | head -c {OUTPUT_BYTES}"}
            )
            assert len(result.model_dump_json(by_alias=True)) <= 40_000
            shown = result.structured_content
            assert shown is not None
            assert (shown["stdout_bytes"], shown["stdout_truncated"]) == (OUTPUT_BYTES, True)
            middle = await value(client, "job_read", job_id=shown["job_id"], cursor=OUTPUT_BYTES // 2)
            assert middle["text"].startswith("0123456\n")

    anyio.run(session)


def test_hostile_arguments_are_refused_and_the_server_goes_on(home: Paths) -> None:
    calls: list[tuple[str, dict[str, object]]] = [
        ("vm_run", {"environment": "debian:12", "command": "x" * 10_000_000}),
        ("vm_run", {"environment": "debian:12", "command": "a\0b"}),
        ("vm_run", {"environment": "../..", "command": "true"}),
        ("vm_run", {"environment": "debian:12", "command": "true", "mem_mib": 10**20}),
        ("vm_delete", {"vm_id": "../../../../tmp"}),
        ("task_create", {"environment": "debian:12", "source_path": "/etc"}),
        ("task_sync_push", {"task_id": "\x1b[2J", "source_path": "\r\n"}),
        ("job_read", {"job_id": "0" * 16, "cursor": -(10**30)}),
    ]

    async def session() -> None:
        async with stdio(home) as client:
            for tool, arguments in calls:
                result = await client.call_tool(tool, arguments)
                assert result.is_error
                assert code_of(result).startswith(("invalid", "unknown"))
            assert (await value(client, "vm_run", environment="debian:12", command="echo on"))["stdout"] == "on\n"

    anyio.run(session)


@contextmanager
def http_server(home: Paths, token: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = parameters(home, "--http", f"127.0.0.1:{port}", "--profile", "vm-run")
    argv, env = [given.command, *given.args], {**os.environ, "PYRO_MCP_TOKEN": token}
    with subprocess.Popen(argv, env=env, cwd=given.cwd, stdin=subprocess.DEVNULL) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            assert until(listens, Deadline.after(30))
            yield f"http://127.0.0.1:{port}/mcp"
            process.terminate()
            assert process.wait(15) == 128 + signal.SIGTERM
        finally:
            process.kill()


@ERAS
def test_http_serves_who_knows_the_token(home: Paths, era: Era) -> None:
    token = "correct-horse-battery"

    async def session(url: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http), mode=era) as client,
        ):
            assert len((await client.list_tools()).tools) == 5
            done = await value(client, "vm_run", environment="debian:12", command="echo over http")
            assert done["stdout"] == "over http\n"
        async with httpx2.AsyncClient() as http:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token}):
                answer = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=given)
                assert answer.status_code == 401
            # What a web page could send through the browser of somebody who has the token there.
            for foreign, status in (({"Origin": "http://evil.example"}, 403), ({"Host": "evil.example"}, 421)):
                accepted = {"Accept": "application/json, text/event-stream"}
                body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
                answer = await http.post(url, json=body, headers={**headers, **accepted, **foreign})
                assert answer.status_code == status

    with http_server(home, token) as url:
        anyio.run(session, url)
