"""Firecracker's API: HTTP over its Unix socket, one short connection per request, answers bounded.

Its ``fault_message`` becomes one of our errors with a remedy: the table below, first match wins.
"""

import http.client
import io
import json
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pyro_mcp.drivers.firecracker.requests import Request
from pyro_mcp.drivers.launcher import connect
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

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ANSWER_MOST = 64 << 10
HEAD_MOST = 16 << 10
FAULT_MOST = 400
REQUEST_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class _Fault:
    pattern: re.Pattern[str]
    error: type[OperationFailed]
    cause: str
    remedy: str | None = None


def _fault(pattern: str, error: type[OperationFailed], cause: str, remedy: str | None = None) -> _Fault:
    return _Fault(re.compile(pattern, re.IGNORECASE), error, cause, remedy)


FAULTS = (
    _fault(r"os error 28|no space left", NoSpace, "no space left for the machine's files"),
    _fault(
        r"/dev/kvm|opening kvm|kvm object|kvm_create_vm|error creating kvm|creating kvm",
        DriverUnavailable,
        "KVM refused the machine",
        "Give yourself access to /dev/kvm, or use --driver qemu.",
    ),
    _fault(
        r"kernel file|load kernel|elf magic|kernel loader|initrd",
        RuntimeBroken,
        "the kernel or the initramfs cannot be loaded",
        "Run `pyro runtime verify`; `pyro runtime install` builds the parts again.",
    ),
    _fault(
        r"os error 12|cannot allocate memory|guest memory",
        CapacityReached,
        "the host has no memory for this machine",
        "Ask for less with --mem-mib, or delete another machine.",
    ),
    _fault(
        r"\btap\b|tun/tap|network interface",
        MachineFault,
        "the network device of the machine cannot be used",
        "Check the permissions of /dev/net/tun, or run it without --network.",
    ),
    _fault(
        r"drive config|virtio block|backing file",
        EnvironmentFault,
        "a disk of the machine cannot be opened",
        "Run `pyro env pull ENVIRONMENT` again; `pyro doctor` shows the free disk space.",
    ),
    _fault(
        r"unknown field|deserializing",
        RuntimeBroken,
        "this Firecracker does not know a field of the request",
        "Run `pyro runtime verify`: the binary is not the version it says it is.",
    ),
)


class _Answer(io.RawIOBase):
    """What comes from a socket until *limit*, and up to a number of bytes: a VMM that was taken over may go on."""

    def __init__(self, connected: socket.socket, limit: Deadline) -> None:
        self._socket = connected
        self._limit = limit
        self._left = HEAD_MOST + ANSWER_MOST

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Some bytes, as a socket's ``recv_into``; raises HTTPException or TimeoutError beyond what it may take."""
        if not self._left:
            raise http.client.HTTPException("the answer is too long")
        if self._limit.passed:
            raise TimeoutError("timed out")
        self._socket.settimeout(self._limit.timeout)
        count = self._socket.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Line:
    """The part of a socket that http.client needs. Whoever has the socket closes it."""

    def __init__(self, connected: socket.socket, limit: Deadline) -> None:
        self.sendall = connected.sendall  # its timeout is for all it sends
        self._answer = _Answer(connected, limit)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The answer."""
        return io.BufferedReader(self._answer)

    def close(self) -> None:
        """Nothing: it may be read from still."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket that is connected already."""

    def __init__(self, connected: socket.socket, limit: Deadline) -> None:
        super().__init__("localhost")
        self.sock = _Line(connected, limit)


class Api:
    """The API of one VMM. *ending* tells, in words, how it ended; empty while it runs."""

    def __init__(self, path: Path, ending: Callable[[], str]) -> None:
        self._path = path
        self._ending = ending

    def send_all(self, requests: Sequence[Request], deadline: Deadline) -> None:
        """Send *requests* in order; each must be answered before the next. Raises as ``send``."""
        for request in requests:
            self.send(request, deadline)

    def send(self, request: Request, deadline: Deadline) -> dict[str, object]:
        """The answer's JSON object, empty for an answer without one.

        Raises MachineFault when the VMM does not answer, and for a refusal what ``FAULTS`` says.
        """
        limit = deadline.sooner(REQUEST_SECONDS)
        try:
            status, data = self._exchange(request, limit)
        except (OSError, http.client.HTTPException) as error:
            raise MachineFault(self._silence(request, error)) from error
        answer = _object(data)
        if status >= 300:
            refuse(request, status, str(answer.get("fault_message", ""))[:FAULT_MOST])
        return answer

    def _exchange(self, request: Request, limit: Deadline) -> tuple[int, bytes]:
        with connect(self._path, limit) as connected:
            connection = _Connection(connected, limit)
            body = None if request.body is None else json.dumps(request.body, sort_keys=True)
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(request.method, request.path, body, headers)
            response = connection.getresponse()
            data = response.read(ANSWER_MOST + 1)
            left = response.length  # of what the head promised; a body that is too long leaves some, too
        if left or len(data) > ANSWER_MOST:
            raise http.client.HTTPException("the answer is too long, or cut short")
        return response.status, data

    def _silence(self, request: Request, error: Exception) -> str:
        how = self._ending()
        if how:
            return f"{how} while it was asked to {request.method} {request.path}"
        return f"Firecracker did not answer {request.method} {request.path}: {error!s:.100}"


def refuse(request: Request, status: int, message: str) -> NoReturn:
    """Raise the error for a refusal."""
    said = "".join(c if c.isprintable() else " " for c in message) or f"status {status}, without a message"
    evidence = [f"firecracker: {request.method} {request.path}: {said}"]
    for row in FAULTS:
        if row.pattern.search(message):
            raise row.error(f"{row.cause}: {said}", remedy=row.remedy, details=evidence)
    raise MachineFault(f"Firecracker refused {request.method} {request.path}: {said}", details=evidence)


def _object(data: bytes) -> dict[str, object]:
    if not data:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
