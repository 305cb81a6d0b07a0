"""Every example, run as it stands: the real libraries, a real guest, and a model that says what is written here."""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from tests.group_environments import ROOT, programs_of
from tests.model_server import chat, serving

from pyro_mcp.mcp_server.hosts import snippet
from pyro_mcp.paths import Paths

EXAMPLES = ROOT / "examples"
RUN_SECONDS = 120.0
UVX = ["uvx", "--from", "pyro-mcp", "pyro", "mcp", "serve"]

pytestmark = pytest.mark.guest

Example = Callable[..., list[str]]


@pytest.fixture(scope="session")
def libraries() -> Path:
    """A Python with what the examples import, and the pyro of this checkout."""
    return programs_of("examples", with_pyro=True) / "python"


@pytest.fixture
def example(home: Paths, tmp_path: Path) -> Example:
    """Run an example to its end, anywhere; the lines of its stdout."""

    def run(name: str, python: str | Path = sys.executable, **variables: str) -> list[str]:
        done = subprocess.run(
            [python, str(EXAMPLES / name)],
            cwd=tmp_path,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.rglob("*.py") if f'"{path.name}"' not in here] == []


def test_one_run(example: Example) -> None:
    version, ending = example("python_run.py")
    assert version.startswith("git version 2.39.")
    assert ending == "exit_code=0 execution_mode=guest_serial"


def test_the_life_of_a_machine(example: Example) -> None:
    assert example("python_lifecycle.py") == ["state=started", "Linux", "root", "deleted=True"]


def test_a_task(example: Example) -> None:
    first, second, *history = example("python_task.py")
    assert first.startswith("hello from ")
    assert second == "hello again"
    assert history == ["#1 exit_code=0 $ sh hello.sh", "#2 exit_code=0 $ sh hello.sh"]


def test_a_tool_for_any_agent(example: Example) -> None:
    good, failed, wrong = map(json.loads, example("agent_vm_run.py"))
    assert (good["exit_code"], good["stdout"].splitlines()[0]) == (0, "Linux")
    assert failed["exit_code"] == 3
    assert wrong["error"].startswith("KeyError")


def response(output: dict[str, Any]) -> dict[str, Any]:
    """An answer of the Responses API with one item of output."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": [output],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def test_a_model_behind_the_responses_api(example: Example, libraries: Path) -> None:
    call = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "vm_run",
        "arguments": json.dumps({"command": "git --version"}),
        "status": "completed",
    }
    text = {"type": "output_text", "text": "It is git 2.39.", "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    with serving(response(call), response(message)) as server:
        lines = example("openai_responses_vm_run.py", libraries, OPENAI_BASE_URL=server.url, OPENAI_API_KEY="none")
    assert lines == ['vm_run {"command": "git --version"}', "It is git 2.39."]
    assert server.paths == ["/v1/responses"] * 2
    given = server.asked[1]["input"][-1]
    assert (given["type"], given["call_id"]) == ("function_call_output", "call_1")
    assert json.loads(given["output"])["stdout"].startswith("git version 2.39.")


def test_a_model_behind_langchain(example: Example, libraries: Path) -> None:
    answers = (chat("", ("vm_run", {"command": "git --version"})), chat("It is git 2.39."))
    with serving(*answers) as server:
        lines = example("langchain_vm_run.py", libraries, OPENAI_BASE_URL=server.url, OPENAI_API_KEY="none")
    assert lines == ["vm_run {'command': 'git --version'}", "It is git 2.39."]
    given = server.asked[1]["messages"][-1]
    assert (given["role"], given["tool_call_id"]) == ("tool", "call_0")
    assert json.loads(given["content"])["stdout"].startswith("git version 2.39.")


CONFIGURATIONS = sorted((EXAMPLES / "mcp").iterdir())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_a_clients_configuration_is_the_one_that_pyro_prints(path: Path) -> None:
    host = {"generic": "cursor"}.get(path.stem, path.stem).replace("_", "-")
    assert path.read_text() == f"{snippet(host, UVX).text}\n"


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_what_a_configuration_starts_is_a_server_with_tools(path: Path, home: Paths) -> None:
    if path.suffix == ".toml":
        entry = tomllib.loads(path.read_text())["mcp_servers"]["pyro"]
    else:
        (servers,) = json.loads(path.read_text()).values()
        entry = servers["pyro"]
    words = [entry["command"], *entry["args"]]
    assert words[:4] == UVX[:4]  # `uvx` fetches the release; here it is the pyro of this checkout
    server = StdioServerParameters(command=sys.executable, args=["-m", "pyro_mcp", *words[4:]], env=dict(os.environ))

    async def listed() -> set[str]:
        async with Client(stdio_client(server)) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert {"vm_run", "task_exec"} <= asyncio.run(listed())
