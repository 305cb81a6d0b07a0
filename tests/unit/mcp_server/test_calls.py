"""Calls through the SDK's own client, in memory: results, limits, handles, cancellation, retries."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp_types import ListRootsResult, Root
from pydantic import FileUrl

from pyro_mcp.engine.store import Store
from pyro_mcp.paths import Paths

from .conftest import Era, Served, failure_of, host_run, text_of, value_of

ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])


@ERAS
def test_a_run_answers_with_the_sdks_object_and_a_compact_text(served: Served, era: Era) -> None:
    async def session(client: Client) -> None:
        result = await client.call_tool("vm_run", host_run("echo out; echo err >&2; exit 3"))
        value = value_of(result)
        assert (value["exit_code"], value["stdout"], value["stderr"]) == (3, "out\n", "err\n")
        assert (value["status"], value["execution_mode"]) == ("completed", "host_compat")
        assert not result.is_error
        assert text_of(result).startswith("exit_code=3 ")
        assert "stdout:\nout" in text_of(result)

    served(session, era=era)


def test_host_execution_is_refused_unless_the_operator_allows_it(served: Served) -> None:
    async def session(client: Client) -> None:
        for tool in ("vm_run", "vm_create", "task_create"):
            arguments = host_run("id") if tool == "vm_run" else {"environment": "debian:12", "allow_host_compat": True}
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert failure_of(result)["code"] == "invalid_request"
            assert "--allow-host-compat" in text_of(result)

    served(session, allow_host_compat=False)


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is asked for


def test_ports_are_published_on_loopback_only_unless_the_operator_allows_more(served: Served) -> None:
    async def ask(client: Client, address: str) -> str:
        wanted = {"task_id": "nosuch", "guest_port": 80, "address": address}
        return str(failure_of(await client.call_tool("task_publish", wanted))["code"])

    async def session(client: Client) -> None:
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            assert await ask(client, address) == "unknown_task"
        for address in (EVERYWHERE, "::", "192.0.2.1", "localhost"):
            assert await ask(client, address) == "invalid_request"

    async def allowed(client: Client) -> None:
        assert await ask(client, EVERYWHERE) == "unknown_task"
        assert await ask(client, "192.0.2.1") == "invalid_request"

    served(session)
    served(allowed, publish_addresses=[EVERYWHERE])


def test_without_a_vmm_nothing_runs(served: Served) -> None:
    async def session(client: Client) -> None:
        result = await client.call_tool("vm_run", {"environment": "debian:12", "command": "id"})
        assert result.is_error
        assert failure_of(result)["code"] in ("driver_unavailable", "program_missing")

    served(session)


def test_five_megabytes_of_output_are_bounded_and_can_be_read_in_full(served: Served) -> None:
    size = 5_000_000

    async def session(client: Client) -> None:
        result = await client.call_tool(
            "vm_run", host_run(f"yes abcdefg | head -c {size}; printf '\\1%.0s' {{1..5000}} >&2")
        )
        value = value_of(result)
        assert value["stdout_truncated"]
        assert value["stdout_bytes"] == size
        assert value["stdout"].startswith("abcdefg\n")
        assert value["stdout"].endswith("abcdefg\n")
        assert f"job_id={value['job_id']}" in value["stdout"]
        assert len(result.model_dump_json(by_alias=True)) <= 40_000
        cursor, total = 0, 0
        for begin in (0, size // 2, size - 6000):
            page = value_of(await client.call_tool("job_read", {"job_id": value["job_id"], "cursor": begin}))
            cursor, total = page["next_cursor"], total + len(page["text"])
            assert page["cursor"] == begin
            assert page["next_cursor"] - begin == len(page["text"])
        assert (cursor, page["at_end"]) == (size, True)
        tail = value_of(await client.call_tool("job_read", {"job_id": value["job_id"], "cursor": -8}))
        assert tail["text"] == "abcdefg\n"

    served(session)


def test_a_call_that_takes_long_answers_with_a_job(served: Served) -> None:
    async def session(client: Client) -> None:
        command = "echo early; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; done; echo late; exit 5"
        value = value_of(await client.call_tool("vm_run", host_run(command)))
        assert (value["status"], value["stdout"]) == ("running", "early\n")
        again = value_of(await client.call_tool("job_wait", {"job_id": value["job_id"], "timeout_seconds": 0}))
        assert again["status"] == "running"
        while again["status"] == "running":
            again = value_of(await client.call_tool("job_wait", {"job_id": value["job_id"]}))
        assert (again["status"], again["exit_code"], again["stdout"]) == ("completed", 5, "early\nlate\n")

    served(session, call_seconds=0.6)


def test_a_job_can_be_cancelled(served: Served) -> None:
    async def session(client: Client) -> None:
        value = value_of(await client.call_tool("vm_run", host_run("echo early; sleep 100")))
        ended = value_of(await client.call_tool("job_cancel", {"job_id": value["job_id"]}))
        assert ended["status"] == "cancelled"
        result = await client.call_tool("job_wait", {"job_id": value["job_id"]})
        assert result.is_error
        assert failure_of(result)["code"] == "interrupted"
        assert "stdout: early" in text_of(result)

    served(session, call_seconds=0.5)


@ERAS
def test_a_cancelled_call_kills_its_command(served: Served, tmp_path: Path, era: Era) -> None:
    mark = tmp_path / "mark"

    async def session(client: Client) -> None:
        command = f"trap 'echo ended > {mark}.end; exit' TERM; echo $$ > {mark}; while :; do sleep 0.1; done"
        with anyio.move_on_after(30) as limit:
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "vm_run", host_run(command))
                while not mark.exists():  # noqa: ASYNC110 - another process makes it
                    await anyio.sleep(0.02)
                group.cancel_scope.cancel()
            process = Path("/proc") / mark.read_text().strip()
            while process.exists():  # noqa: ASYNC110
                await anyio.sleep(0.02)
        assert not limit.cancelled_caught

    served(session, era=era)


def test_a_repeated_call_with_the_same_key_does_not_run_twice(served: Served, tmp_path: Path) -> None:
    count = tmp_path / "count"

    async def session(client: Client) -> None:
        arguments = host_run(f"echo once >> {count}; sleep 0.3; exit 4", idempotency_key="k1")
        results: list[dict[str, Any]] = []

        async def call() -> None:
            results.append(value_of(await client.call_tool("vm_run", arguments)))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
        await call()
        assert count.read_text() == "once\n"
        assert results[0] == results[1] == results[2]
        other = await client.call_tool("vm_run", {**arguments, "command": "true"})
        assert other.is_error
        assert "idempotency_key" in text_of(other)

    served(session)


def test_a_call_that_came_to_nothing_may_be_tried_again_with_its_key(served: Served, tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    async def session(client: Client) -> None:
        arguments = host_run("pwd", idempotency_key="k", cwd=str(missing))
        assert (await client.call_tool("vm_run", arguments)).is_error
        missing.mkdir()
        value = value_of(await client.call_tool("vm_run", arguments))
        assert (value["exit_code"], value["stdout"]) == (0, f"{missing}\n")

    served(session)


@ERAS
def test_progress_is_told_while_a_call_works(served: Served, era: Era) -> None:
    async def session(client: Client) -> None:
        told: list[tuple[float, str | None]] = []

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, message))

        await client.call_tool("vm_run", host_run("sleep 1"), progress_callback=on_progress)
        assert [value for value, _ in told] == sorted({value for value, _ in told})
        assert any("running the command" in (message or "") for _, message in told)

    served(session, era=era)


def test_other_calls_are_answered_while_one_works(served: Served) -> None:
    async def session(client: Client) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "vm_run", host_run("sleep 2"))
            await anyio.sleep(0.2)
            began = time.monotonic()
            await client.call_tool("vm_list_environments", {})
            assert time.monotonic() - began < 1.5

    served(session)


def test_the_steps_of_a_machine(served: Served) -> None:
    async def session(client: Client) -> None:
        created = value_of(await client.call_tool("vm_create", {"environment": "debian:12", "allow_host_compat": True}))
        vm = {"vm_id": created["vm_id"]}
        assert created["state"] == "created"
        assert value_of(await client.call_tool("vm_start", vm))["state"] == "started"
        network = value_of(await client.call_tool("vm_network_info", vm))
        assert (network["network_enabled"], network["outbound_connectivity_expected"]) == (False, False)
        assert network["reason"]
        assert value_of(await client.call_tool("vm_stop", vm))["state"] == "stopped"
        assert value_of(await client.call_tool("vm_reap_expired", {})) == {"deleted_vm_ids": [], "count": 0}
        assert value_of(await client.call_tool("vm_delete", vm)) == {**vm, "deleted": True, "reason": "explicit_delete"}
        gone = await client.call_tool("vm_status", vm)
        assert failure_of(gone)["code"] == "unknown_machine"

    served(session)


def test_a_vm_past_its_time_is_reaped_and_named(served: Served, paths: Paths) -> None:
    async def session(client: Client) -> None:
        wish = {"environment": "debian:12", "allow_host_compat": True}
        old, young = [value_of(await client.call_tool("vm_create", wish))["vm_id"] for _ in range(2)]
        store = Store(paths.database)
        store.update(replace(store.get(old), expires_at=1.0))
        reaped = await client.call_tool("vm_reap_expired", {})
        assert value_of(reaped) == {"deleted_vm_ids": [old], "count": 1}
        assert failure_of(await client.call_tool("vm_status", {"vm_id": old}))["code"] == "unknown_machine"
        assert value_of(await client.call_tool("vm_status", {"vm_id": young}))["state"] == "created"
        store.update(replace(store.get(young), expires_at=1.0))
        assert failure_of(await client.call_tool("vm_status", {"vm_id": young}))["code"] == "machine_expired"
        assert store.all() == ([], [])

    served(session)


def test_machines_die_with_the_server(served: Served, paths: Paths) -> None:
    async def session(client: Client) -> None:
        await client.call_tool("vm_create", {"environment": "debian:12", "allow_host_compat": True})

    served(session)
    assert Store(paths.database).all() == ([], [])


@ERAS
def test_the_clients_roots_may_be_pushed_from_and_nothing_else(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir("/")

    async def roots(_context: object) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=FileUrl(root.as_uri()))])

    async def session(client: Client) -> None:
        for place, cause in ((root, "unknown_task"), (elsewhere, "invalid_request")):
            result = await client.call_tool("task_sync_push", {"task_id": "t", "source_path": str(place)})
            assert failure_of(result)["code"] == cause

    served(session, era=era, client={"list_roots_callback": roots})


HOSTILE: list[tuple[str, dict[str, object]]] = [
    ("vm_status", {"vm_id": "../../../etc"}),
    ("vm_status", {"vm_id": "0" * 12 + "\n"}),
    ("vm_status", {"vm_id": None}),
    ("vm_status", {}),
    ("vm_status", {"vm_id": "0" * 12, "extra": 1}),
    ("vm_run", {"environment": "a\nb", "command": "true"}),
    ("vm_run", {"environment": "../../etc", "command": "true"}),
    ("vm_run", {"environment": "debian:12", "command": ""}),
    ("vm_run", {"environment": "debian:12", "command": "a\0b"}),
    ("vm_run", {"environment": "debian:12", "command": "x" * 10_000_000}),
    ("vm_run", {"environment": "debian:12", "command": "true", "vcpu_count": 9}),
    ("vm_run", {"environment": "debian:12", "command": "true", "mem_mib": 10**30}),
    ("vm_run", {"environment": "debian:12", "command": "true", "timeout_seconds": -1}),
    ("vm_run", {"environment": "debian:12", "command": "true", "timeout_seconds": "nan"}),
    ("vm_run", {"environment": "debian:12", "command": "true", "env": {"A=B": "c"}}),
    ("vm_run", {"environment": "debian:12", "command": "true", "env": {"A": "\0"}}),
    ("vm_run", {"environment": "debian:12", "command": "true", "cwd": "relative"}),
    ("vm_run", {"environment": "debian:12", "command": "true", "stdin": "x" * 10_000_000}),
    ("vm_run", {"environment": "debian:12", "command": "true", "ttl_seconds": 1}),
    ("task_create", {"environment": "debian:12", "source_path": "/etc"}),
    ("task_create", {"environment": "debian:12", "source_path": "a\0b"}),
    ("task_create", {"environment": "debian:12", "name": "../up"}),
    ("task_sync_push", {"task_id": "t", "source_path": "/proc/self/environ"}),
    ("task_status", {"task_id": "../../x"}),
    ("task_exec", {"task_id": "nosuch", "command": "true"}),
    ("task_logs", {"task_id": "nosuch", "last": 10**9}),
    ("job_read", {"job_id": "f" * 16}),
    ("job_read", {"job_id": "../x"}),
    ("job_read", {"job_id": "f" * 16, "cursor": 10**40}),
    ("job_wait", {"job_id": "f" * 16, "task_id": "nosuch"}),
    ("job_cancel", {"job_id": ["f" * 16]}),
    ("no_such_tool\x1b[31m", {}),
]


@pytest.mark.parametrize(
    ("tool", "arguments"), HOSTILE, ids=[f"{n}-{tool[:12]}" for n, (tool, _) in enumerate(HOSTILE)]
)
def test_hostile_arguments_are_refused_with_a_typed_error(
    served: Served, tool: str, arguments: dict[str, object], tmp_path: Path
) -> None:
    async def session(client: Client) -> None:
        result = await client.session.call_tool(tool, arguments)
        assert result.is_error
        failure = failure_of(result)
        assert failure["ok"] is False
        assert failure["code"] in (
            "invalid_request",
            "unknown_environment",
            "unknown_machine",
            "unknown_task",
            "unknown_job",
        )
        assert failure["error"]
        assert failure["remedy"]
        assert len(json.dumps(failure)) < 5000
        assert text_of(result).replace("\n", "").isprintable()

    served(session)
