"""``pyro demo ollama``: a local model is given a microVM as its tool."""

import json
from typing import Any

import click

from pyro_mcp import model
from pyro_mcp.cli import render
from pyro_mcp.cli.chat import ChatServer, ToolCall, printable
from pyro_mcp.cli.progress import TaggedProgress
from pyro_mcp.errors import InvalidRequest, PyroError
from pyro_mcp.host.deadline import Deadline

ENVIRONMENT = "debian:12"
COMMAND = "git --version"
PROMPT = (
    f"Use the tool vm_run to run the command `{COMMAND}` in the environment {ENVIRONMENT}, then say in one sentence"
    " which version of git it has."
)
ROUNDS_MOST = 4
CHAT_SECONDS = 600.0
COMMAND_SECONDS = 60
SHOWN_MOST = 400
OUTPUT_TO_MODEL_MOST = 8 << 10
TOOL = {
    "type": "function",
    "function": {
        "name": "vm_run",
        "description": "Run a shell command in a fresh virtual machine, which is deleted afterwards.",
        "parameters": {
            "type": "object",
            "properties": {
                "environment": {"type": "string", "description": f"For instance {ENVIRONMENT}"},
                "command": {"type": "string", "description": f"For instance {COMMAND}"},
            },
            "required": ["environment", "command"],
        },
    },
}


@click.command("ollama", short_help="Let a local model run a command in a microVM.")
@click.option(
    "--base-url", default="http://localhost:11434/v1", show_default=True, help="Where the OpenAI-compatible server is."
)
@click.option("--model", "model_name", default="llama3.2:3b", show_default=True, help="The model to ask.")
@click.option("-v", "--verbose", is_flag=True, help="Also show what the command printed.")
def command(base_url: str, model_name: str, *, verbose: bool) -> int:
    """Ask a local model for the version of git in debian:12, with a microVM as its tool.

    The server is Ollama or any other that speaks the OpenAI chat protocol with tools. A model that does not use the
    tool is helped out: the command is run all the same, and the summary says so.

    \b
    Examples:
      pyro demo ollama
      pyro demo ollama --model qwen3:4b -v
    """  # noqa: D301 - \b is click's mark for a block that is not rewrapped
    try:
        render.lines([f"[ollama] base_url={printable(base_url, SHOWN_MOST)} model={printable(model_name, SHOWN_MOST)}"])
        result, fallback = _Demo(ChatServer(base_url, model_name)).run()
    except PyroError as error:
        render.lines([f"[error] {error.cause}", f"        {error.remedy}"])
        return 1
    mode = result["execution_mode"]
    render.lines(["[done]"])
    if verbose:
        render.lines([f"[summary] stdout={printable(result['stdout'], SHOWN_MOST)}"])
    render.lines([f"[summary] exit_code={result['exit_code']} fallback_used={fallback} execution_mode={mode}"])
    return 0


class _Demo:
    """One conversation: the model asks for calls, and is given their results, until it has nothing more to ask."""

    def __init__(self, server: ChatServer) -> None:
        from pyro_mcp.sdk import Pyro

        self._server = server
        self._pyro = Pyro(progress=TaggedProgress("demo"))
        self._last: model.RunResult | None = None

    def run(self) -> tuple[model.RunResult, bool]:
        """The result of the last command, and whether the model had to be helped out."""
        deadline = Deadline.after(CHAT_SECONDS)
        messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
        render.lines([f"[model] input: {PROMPT}"])
        for _ in range(ROUNDS_MOST):
            reply = self._server.complete(messages, [TOOL], deadline)
            if reply.text:
                render.lines([f"[model] output: {printable(reply.text, SHOWN_MOST)}"])
            if not reply.calls:
                break
            messages.append(reply.message)
            for call in reply.calls:
                answer = json.dumps(self._answer(call))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": answer})
        if self._last is not None:
            return self._last, False
        render.lines([f"[fallback] the model ran nothing; running `{COMMAND}` in {ENVIRONMENT} without it"])
        return self._vm_run(ENVIRONMENT, COMMAND), True

    def _answer(self, call: ToolCall) -> dict[str, Any]:
        """What the model gets for *call*; a call that cannot be carried out is told to it, so that it can do better."""
        shown = f"{printable(call.name, 64)} {printable(call.arguments, SHOWN_MOST)}"
        render.lines([f"[model] tool_call: {shown}"])
        try:
            self._last = result = self._vm_run(*_arguments(call))
        except PyroError as error:
            render.lines([f"[tool] refused: {printable(error.cause, SHOWN_MOST)}"])
            return error.as_dict()
        render.lines(
            [f"[tool] vm_run exit_code={result['exit_code']} stdout={printable(result['stdout'], SHOWN_MOST)}"]
        )
        return {
            "exit_code": result["exit_code"],
            "stdout": result["stdout"][:OUTPUT_TO_MODEL_MOST],
            "stderr": result["stderr"][:OUTPUT_TO_MODEL_MOST],
        }

    def _vm_run(self, environment: str, text: str) -> model.RunResult:
        return self._pyro.run_in_vm(environment=environment, command=text, timeout_seconds=COMMAND_SECONDS)


def _arguments(call: ToolCall) -> tuple[str, str]:
    """The environment and the command the model wants; raises InvalidRequest for anything else."""
    if call.name != "vm_run":
        raise InvalidRequest(f"there is no tool {call.name!r:.60}", remedy="Call vm_run.")
    try:
        values = json.loads(call.arguments)
    except (ValueError, RecursionError):
        values = None
    words = [values.get(name) for name in ("environment", "command")] if isinstance(values, dict) else []
    environment, text = words if len(words) == 2 else (None, None)
    if not isinstance(environment, str) or not isinstance(text, str) or not text.strip():
        raise InvalidRequest("the arguments are not two strings", remedy="Give environment and command as strings.")
    if environment != ENVIRONMENT and not environment.startswith(f"{ENVIRONMENT}-"):
        raise InvalidRequest(f"this demo has no environment {environment!r:.60}", remedy=f"Use {ENVIRONMENT}.")
    return environment, text
