"""The client of Firecracker's API against a server that answers as Firecracker 1.12.1 did, or worse."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyro_mcp.drivers.firecracker.api import ANSWER_MOST, Api, refuse
from pyro_mcp.drivers.firecracker.requests import Request
from pyro_mcp.errors import (
    CapacityReached,
    DriverUnavailable,
    EnvironmentFault,
    MachineFault,
    NoSpace,
    OperationFailed,
    RuntimeBroken,
)
from pyro_mcp.host.deadline import Deadline

REQUEST = Request("PUT", "/vsock", {"guest_cid": 3, "uds_path": "run/v.sock"})
NOTHING = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
# Recorded from Firecracker 1.12.1.
SAID = {
    "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)": RuntimeBroken,
    "Start microvm error: System configuration error: Cannot load kernel due to invalid memory configuration or "
    "invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic "
    "number": RuntimeBroken,
    "Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the "
    "backing file: No such file or directory (os error 2) /nonexist": EnvironmentFault,
    "An error occurred when deserializing the json body of a request: unknown field `x`, expected one of "
    "`vcpu_count`": RuntimeBroken,
    "Start microvm error: Error creating KVM object: Error opening /dev/kvm": DriverUnavailable,
    "Start microvm error: Cannot allocate memory (os error 12)": CapacityReached,
    "Create snapshot error: No space left on device (os error 28)": NoSpace,
    "Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix socket: path "
    "must be shorter than SUN_LEN": MachineFault,
    "Open tap device failed: Permission denied": MachineFault,
    "": MachineFault,
}


def answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def whole_request(connection: socket.socket) -> bytes:
    """To its last byte: closing with bytes unread would cut the answer off."""
    text = b""
    while b"\r\n\r\n" not in text:
        text += connection.recv(4096)
    head, _, body = text.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"Content-Length")), 0)
    while len(body) < length:
        body += connection.recv(4096)
    return head + b"\r\n\r\n" + body


@contextmanager
def server(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """Gives each connection the next answer, whatever it asks; what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for text in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(whole_request(connection))
                    connection.sendall(text)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked
        thread.join(10)


@contextmanager
def without_end(path: Path, head: bytes, more: bytes, *, pause: float, times: int) -> Iterator[threading.Event]:
    """Says *head*, then *more*, *times* over; what is set once the client has left before all of that."""
    left, over = threading.Event(), threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                whole_request(connection)
                try:
                    connection.sendall(head)
                    for _ in range(times):
                        connection.sendall(more)
                        over.wait(pause)
                except OSError:
                    left.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield left
        over.set()
        thread.join(30)


@pytest.fixture
def sock(tmp_path: Path) -> Path:
    return tmp_path / "api.sock"


def api(path: Path, ending: str = "") -> Api:
    return Api(path, lambda: ending)


def test_requests_are_sent_in_order_as_json(sock: Path) -> None:
    with server(sock, NOTHING, answer("200 OK", b'{"state": "Running"}')) as asked:
        client = api(sock)
        client.send_all([REQUEST], Deadline.after(10))
        assert client.send(Request("GET", "/", None), Deadline.after(10)) == {"state": "Running"}
    assert asked[0].startswith(b"PUT /vsock HTTP/1.1\r\n")
    assert asked[0].endswith(b'{"guest_cid": 3, "uds_path": "run/v.sock"}')
    assert asked[1].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("said", SAID)
def test_a_fault_message_becomes_an_error_with_that_message_and_a_remedy(said: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        refuse(REQUEST, 400, said)
    assert type(caught.value) is SAID[said]
    assert said in caught.value.cause
    assert caught.value.remedy
    assert "PUT /vsock" in caught.value.details[0]


def test_a_refusal_over_the_socket_is_typed(sock: Path) -> None:
    body = b'{"fault_message":"Boot source error: The kernel file cannot be opened: x"}'
    with server(sock, answer("400 Bad Request", body)), pytest.raises(RuntimeBroken, match="kernel"):
        api(sock).send(REQUEST, Deadline.after(10))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff" * 100,
        b"HTTP/1.1 204 \r\n" + b"X: y\r\n" * 1000,
        answer("200 OK", b"[" * ANSWER_MOST + b"[["),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx",
    ],
)
def test_nonsense_from_the_vmm_is_a_machine_fault(sock: Path, text: bytes) -> None:
    with server(sock, text), pytest.raises(MachineFault, match="did not answer PUT /vsock"):
        api(sock).send(REQUEST, Deadline.after(10))


@pytest.mark.parametrize("body", [b"[" * 60_000, b"{", b"[1]", b'"text"', b"\xff"])
def test_an_answer_that_is_no_object_counts_as_empty(sock: Path, body: bytes) -> None:
    with server(sock, answer("200 OK", body)):
        assert api(sock).send(REQUEST, Deadline.after(10)) == {}


def test_a_vmm_that_does_not_answer_is_given_up_at_the_deadline(sock: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sock))
        listener.listen()
        with pytest.raises(MachineFault, match="did not answer"):
            api(sock).send(REQUEST, Deadline.after(0.05))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"], ids=["head", "body"]
)
def test_a_vmm_that_says_little_at_a_time_is_given_up_at_the_deadline(sock: Path, head: bytes) -> None:
    with without_end(sock, head, b"2", pause=0.01, times=1000) as left:
        with pytest.raises(MachineFault, match="did not answer PUT /vsock: timed out"):
            api(sock).send(REQUEST, Deadline.after(0.2))
        assert left.wait(30)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 60_000 + b"\r\n"),
    ],
    ids=["heads", "trailers", "fields"],
)
def test_a_vmm_that_talks_without_end_is_given_up(sock: Path, head: bytes, more: bytes) -> None:
    with without_end(sock, head, more, pause=0, times=200_000) as left:
        with pytest.raises(MachineFault, match="did not answer PUT /vsock: the answer is too long"):
            api(sock).send(REQUEST, Deadline.after(30))
        assert left.wait(30)


def test_an_answer_after_which_the_connection_is_closed_is_read(sock: Path) -> None:
    body = b'{"state": "Running"}'
    for text in (b"HTTP/1.0 200 OK\r\n\r\n" + body, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body):
        with server(sock, text):
            assert api(sock).send(REQUEST, Deadline.after(10)) == {"state": "Running"}
        sock.unlink()


def test_a_vmm_that_ended_is_named_as_the_cause(sock: Path) -> None:
    with pytest.raises(MachineFault, match="the VMM ended with status 1"):
        api(sock, "the VMM ended with status 1").send(REQUEST, Deadline.after(1))
