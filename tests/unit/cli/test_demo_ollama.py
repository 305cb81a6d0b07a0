"""``pyro demo ollama`` when the server is not there, or does not speak the protocol: no guest is started."""

import json
import socket
from typing import Any

import pytest
from tests.model_server import chat, serving

from pyro_mcp.cli import demo_ollama
from pyro_mcp.cli.chat import ANSWER_MOST, CALLS_MOST
from pyro_mcp.cli.demo_ollama import ENVIRONMENT
from pyro_mcp.cli.main import run

pytestmark = pytest.mark.usefixtures("paths")


def asked(capsys: pytest.CaptureFixture[str], url: str) -> str:
    """What the demo says on stdout when it fails."""
    assert run(["demo", "ollama", "--base-url", url]) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "[summary]" not in printed.out
    return printed.out


def test_a_server_that_is_not_there_is_named_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    said = asked(capsys, url)
    assert f"[error] {url}/chat/completions does not answer: " in said
    assert "ollama serve" in said


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "localhost:11434", "http://", "http://a b/", "http://[::1", "http://h:99999/", "http://h\n/"]
)
def test_an_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not an http address" in asked(capsys, url)


def test_a_refusal_is_shown_in_the_servers_words(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = {"error": {"message": 'model "llama3.2:3b" not found\x1b[31m, try pulling it first'}}
    with serving(refusal, status=404) as server:
        said = asked(capsys, server.url)
    assert 'answers 404: model "llama3.2:3b" not found [31m, try pulling it first' in said


def test_an_answer_that_points_elsewhere_is_not_followed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({}, status=307) as server:
        assert "answers 307" in asked(capsys, server.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"tool_calls": "x"}}]}',
        b'{"choices": [{"message": {"tool_calls": [7]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": 1, "arguments": "{}"}}]}}]}',
        json.dumps(chat("", *[("vm_run", "{}")] * (CALLS_MOST + 1))).encode(),
    ],
    ids=range(12),
)
def test_an_answer_outside_the_protocol_is_an_error(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(answer) as server:
        assert "does not speak the chat protocol" in asked(capsys, server.url)


def test_an_answer_without_end_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(b" " * (ANSWER_MOST + 1)) as server:
        assert "answers with more than" in asked(capsys, server.url)


@pytest.mark.parametrize(
    "call",
    [
        ("rm", {}),
        ("vm_run", "no json"),
        ("vm_run", "[]"),
        ("vm_run", {"environment": ENVIRONMENT}),
        ("vm_run", {"environment": ENVIRONMENT, "command": " "}),
        ("vm_run", {"environment": "evil.example/image", "command": "id"}),
    ],
    ids=range(6),
)
def test_a_call_that_cannot_be_carried_out_is_told_to_the_model(
    call: tuple[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(chat("", call), b"") as server:
        assert "[tool] refused: " in asked(capsys, server.url)
        told = json.loads(server.asked[1]["messages"][-1]["content"])
        assert server.paths == ["/v1/chat/completions"] * 2
    assert told["ok"] is False
    assert told["remedy"]
    assert server.asked[0]["tools"] == [demo_ollama.TOOL]
