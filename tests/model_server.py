"""A model that says what a test has written down, behind the protocols that clients of models speak."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.loopback import running

# What is answered to one request: an object, as JSON; bytes, as they are; or whatever a function makes of the request.
Answer = dict[str, Any] | bytes | Callable[[dict[str, Any]], dict[str, Any]]
REQUEST_MOST = 1 << 20


class ModelServer(ThreadingHTTPServer):
    """Answers the n-th request with the n-th of *answers*; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, answers: Sequence[Answer], status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = status
        self._answers = list(answers)

    @property
    def url(self) -> str:
        """What clients call the base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_answer(self, request: dict[str, Any]) -> bytes:
        """The answer to *request*."""
        answer = self._answers[len(self.asked)]
        self.asked.append(request)
        if isinstance(answer, bytes):
            return answer
        return json.dumps(answer(request) if callable(answer) else answer).encode()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def do_POST(self) -> None:
        """Answer."""
        body = self.rfile.read(min(int(self.headers["Content-Length"]), REQUEST_MOST))
        self.server.paths.append(self.path)
        answer = self.server.next_answer(json.loads(body))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(*answers: Answer, status: int = 200) -> Iterator[ModelServer]:
    """A server on loopback, until the block ends."""
    with running(ModelServer(answers, status)) as server:
        yield server


def chat(text: str = "", *calls: tuple[str, dict[str, Any] | str]) -> dict[str, Any]:
    """An answer of the chat protocol: *text*, and calls of tools as (name, arguments)."""
    message = {
        "role": "assistant",
        "content": text or None,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": said if isinstance(said, str) else json.dumps(said)},
            }
            for number, (name, said) in enumerate(calls)
        ],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "chat-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
