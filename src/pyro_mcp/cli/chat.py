"""A chat with a model behind an OpenAI-compatible server, such as Ollama. What it answers is checked and bounded."""

import contextlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from pyro_mcp import __version__
from pyro_mcp.errors import HostFault, InvalidRequest
from pyro_mcp.host.deadline import Deadline

ANSWER_MOST = 4 << 20
CHUNK = 1 << 16
STALL_SECONDS = 120.0  # a model that is loaded first says nothing for long
CALLS_MOST = 8
ARGUMENTS_MOST = 64 << 10
MESSAGE_MOST = 300
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REMEDY = (
    "Start the server (`ollama serve`) and fetch the model (`ollama pull MODEL`), or name others with --base-url and"
    " --model."
)


def printable(text: str, most: int) -> str:
    """*text* on one line, at most *most* characters, with nothing in it that acts on a terminal."""
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * most]).split())
    return clean if len(clean) <= most else f"{clean[:most]}..."


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asks for. *arguments* is what it wrote, not yet checked."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, as text and as calls; *message* goes back to it as part of the conversation."""

    text: str
    calls: tuple[ToolCall, ...]
    message: dict[str, Any]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An answer that points elsewhere is an error: the conversation stays with the server that was named."""

    def redirect_request(self, *_: object) -> None:
        """Never follow."""


class ChatServer:
    """The server at *base_url*, which ends in ``/v1``. Raises InvalidRequest for what is no http address."""

    def __init__(self, base_url: str, model: str) -> None:
        try:
            parts = urllib.parse.urlsplit(base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
        except ValueError:
            usable = False
        if not usable or not base_url.isprintable() or " " in base_url or not base_url.isascii():
            raise InvalidRequest(
                f"--base-url {base_url!r:.80} is not an http address",
                remedy="For instance: --base-url http://localhost:11434/v1",
            )
        direct = [urllib.request.ProxyHandler({})] if parts.hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirects, *direct)
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model

    def complete(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], deadline: Deadline) -> Reply:
        """The model's next message. Raises HostFault for a server that is not there, refuses, or talks nonsense."""
        body = json.dumps({"model": self._model, "messages": messages, "tools": tools, "stream": False}).encode()
        headers = {"Content-Type": "application/json", "User-Agent": f"pyro/{__version__}"}
        request = urllib.request.Request(self._url, data=body, headers=headers)  # noqa: S310 - checked above
        with _translated(self._url):
            timeout = deadline.sooner(STALL_SECONDS).timeout
            with self._opener.open(request, timeout=timeout) as answer:
                data = _read(answer, deadline, self._url)
        return _reply(data, self._url)


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            said = _error_text(error)
        raise HostFault(f"{url} answers {error.code}{said}", remedy=REMEDY) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error) or type(error).__name__
        raise HostFault(f"{url} does not answer: {printable(str(reason), MESSAGE_MOST)}", remedy=REMEDY) from error


def _error_text(answer: urllib.error.HTTPError) -> str:
    """What the server says of its refusal: ``{"error": {"message": ...}}``, ``{"error": ...}``, or nothing."""
    try:
        error = json.loads(answer.read(CHUNK))["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, TypeError, OSError, http.client.HTTPException, RecursionError):
        return ""
    return f": {printable(text, MESSAGE_MOST)}" if isinstance(text, str) else ""


def _read(answer: IO[bytes], deadline: Deadline, url: str) -> bytes:
    data = bytearray()
    while chunk := answer.read1(CHUNK):  # type: ignore[attr-defined]
        data += chunk
        deadline.check(f"the answer of {url}", HostFault)
        if len(data) > ANSWER_MOST:
            raise HostFault(f"{url} answers with more than {ANSWER_MOST} bytes", remedy=REMEDY)
    return bytes(data)


def _reply(data: bytes, url: str) -> Reply:
    def wrong(what: str) -> NoReturn:
        raise HostFault(f"{url} does not speak the chat protocol: {what}", remedy=REMEDY)

    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        wrong("its answer is no JSON")
    try:
        message = value["choices"][0]["message"]
        text, calls = message.get("content") or "", message.get("tool_calls") or []
    except (LookupError, TypeError, AttributeError):
        wrong("its answer has no message")
    if not isinstance(text, str) or not isinstance(calls, list):
        wrong("its message is malformed")
    if len(calls) > CALLS_MOST:
        wrong(f"it asks for more than {CALLS_MOST} calls at once")
    found = tuple(_call(call) for call in calls)
    if not all(found):
        wrong("a tool call is malformed")
    good = tuple(call for call in found if call)
    return Reply(text, good, {"role": "assistant", "content": text, "tool_calls": [_sent(call) for call in good]})


def _call(call: object) -> ToolCall | None:
    """A call of the answer; ``None`` when it is malformed. Some servers send the arguments as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return None
    identifier, name, arguments = call.get("id") or "", function.get("name"), function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    if not isinstance(identifier, str) or not isinstance(name, str) or not isinstance(arguments, str):
        return None
    return ToolCall(identifier, name, arguments) if len(arguments) <= ARGUMENTS_MOST else None


def _sent(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
