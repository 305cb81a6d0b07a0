"""``pyro demo`` and ``pyro demo ollama`` with a real guest; the model is one that says what is written here."""

import json
import re

import pytest
from tests.model_server import chat, serving

from pyro_mcp.cli.demo_ollama import COMMAND, ENVIRONMENT, PROMPT

from .conftest import Cli

pytestmark = pytest.mark.guest

SUMMARY = "[summary] exit_code=0 fallback_used={fallback} execution_mode=guest_serial"


def test_the_demo_prints_the_whole_result_as_json(cli: Cli) -> None:
    ended = cli("demo")
    assert ended.code == 0
    result = json.loads(ended.text)
    assert result["stdout"].startswith("git version 2.39.")
    assert (result["exit_code"], result["execution_mode"]) == (0, "guest_serial")


def test_a_model_runs_a_command_in_a_guest_and_is_given_its_output(cli: Cli) -> None:
    wanted = {"environment": ENVIRONMENT, "command": COMMAND}
    answers = (chat("", ("vm_run", wanted)), chat("It is\x1b[2J git 2.39."))
    with serving(*answers) as server:
        ended = cli("demo", "ollama", "--base-url", server.url, "--model", "tiny", "-v")
        told = json.loads(server.asked[1]["messages"][-1]["content"])
    assert ended.code == 0, ended.text + ended.errors
    assert (server.asked[0]["model"], server.asked[0]["messages"]) == ("tiny", [{"role": "user", "content": PROMPT}])
    assert server.asked[1]["messages"][1]["tool_calls"][0]["id"] == server.asked[1]["messages"][2]["tool_call_id"]
    assert re.fullmatch(r"git version 2\.39\.\d+\n", told["stdout"])
    lines = ended.text.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        "[ollama]", "[model]", "[model]", "[tool]", "[model]", "[done]", "[summary]", "[summary]",
    ]  # fmt: skip
    assert lines[2].startswith("[model] tool_call: vm_run {")
    assert lines[4] == "[model] output: It is [2J git 2.39."
    assert lines[-2].startswith("[summary] stdout=git version 2.39.")
    assert lines[-1] == SUMMARY.format(fallback=False)


def test_a_model_that_runs_nothing_is_helped_out(cli: Cli) -> None:
    with serving(chat("I cannot do that.")) as server:
        ended = cli("demo", "ollama", "--base-url", server.url)
    assert ended.code == 0, ended.text + ended.errors
    assert "\n[fallback] " in ended.text
    assert ended.text.splitlines()[-1] == SUMMARY.format(fallback=True)
