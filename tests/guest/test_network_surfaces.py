"""The network of a guest, and its published ports, as MCP clients see them."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp import Client, StdioServerParameters

from .network_host import LOOK, ONLY_ROOT, SERVER, Host, seen, world_of

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("home"), ONLY_ROOT]
HOSTS = ("example.com", "other.example", "10.0.0.1")


@pytest.fixture
def veth(tmp_path: Path) -> Iterator[Host]:
    with world_of("veth", tmp_path) as found:
        yield found


@asynccontextmanager
async def client_of(host: Host) -> AsyncIterator[Client]:
    """A client of an MCP server on *host*."""
    argv = host.argv("mcp", "serve")
    async with Client(StdioServerParameters(command=argv[0], args=argv[1:], env=dict(os.environ))) as client:
        yield client


async def value(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """The structured result of a call that succeeds."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def test_an_mcp_client_opens_hosts_and_sees_what_is_denied(veth: Host) -> None:
    look = f"cat >/tmp/look <<'END'\n{LOOK}\nEND\nbash /tmp/look {' '.join(HOSTS)}"

    async def session() -> None:
        async with client_of(veth) as client:
            made = await value(client, "vm_create", environment="debian:12", allow_hosts=["example.com:80"])
            vm = made["vm_id"]
            before = await value(client, "vm_network_info", vm_id=vm)
            assert (before["network_enabled"], before["outbound_connectivity_expected"]) == (True, False)
            await value(client, "vm_start", vm_id=vm)
            info = await value(client, "vm_network_info", vm_id=vm)
            assert (info["outbound_connectivity_expected"], info["network"]["problem"]) == (True, "")
            assert info["network"]["allow_hosts"] == ["example.com:80"]
            assert (info["guest_ip"], info["dns_servers"]) == ("172.29.1.2", ["172.29.1.1"])
            done = await value(client, "vm_exec", vm_id=vm, command=look, timeout_seconds=120)
            assert seen(done["stdout"])["example.com"] == "this is 93.184.216.34"
            assert {seen(done["stdout"])[host] for host in HOSTS[1:]} == {"closed"}
            assert done["network"]["denied"]["private"] > 0
            assert done["network"]["refused_names"] == ["other.example"]
            private = {"environment": "debian:12", "network": True, "allow_private": ["10.0.0.0/8"]}
            assert (await client.call_tool("vm_create", private)).is_error

    anyio.run(session)


def test_an_mcp_client_publishes_a_port_of_its_task(veth: Host) -> None:
    start = f"(setsid perl -e '{SERVER}' 9 >/log 2>&1 &); until grep -q ready /log; do sleep 0.1; done"

    async def session() -> None:
        async with client_of(veth) as client:
            await value(client, "task_create", environment="debian:12", name="served")
            await value(client, "task_exec", task_id="served", command=start, timeout_seconds=60)
            made = await value(client, "task_publish", task_id="served", guest_port=80)
            port = made["host_port"]
            ask = f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; cat <&3"
            assert await anyio.to_thread.run_sync(veth.world.ask, "bash", "-c", ask) == "said hello\n"
            other = {"task_id": "served", "guest_port": 80, "address": "0.0.0.0"}  # noqa: S104 - it is refused
            assert (await client.call_tool("task_publish", other)).is_error
            await value(client, "task_unpublish", task_id="served")
            with pytest.raises(subprocess.CalledProcessError):
                await anyio.to_thread.run_sync(veth.world.ask, "bash", "-c", ask)
            await value(client, "task_delete", task_id="served")

    anyio.run(session)
