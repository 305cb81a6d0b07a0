"""An agent that keeps to the protocol (docs/protocol.md), for tests: its "commands" are Python functions."""

import base64
import os
import threading
from collections.abc import Callable
from typing import Any

from pyro_mcp.guest import wire
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.testing.guest_peer import STUCK_SECONDS, GuestPeer, HostGone

CREDIT = 64 << 10
CHUNK = 32 << 10


class FakeJob:
    """A command in a :class:`FakeAgent`: what its program sees.

    Output is kept, and sent while a host is attached.
    """

    def __init__(self, peer: GuestPeer, request: dict[str, Any]) -> None:
        self.request = request
        self.job: str = request["job"]
        self.command = os.fsdecode(base64.b64decode(request["argv"][-1]))
        self.exit: dict[str, Any] | None = None
        self._peer: GuestPeer | None = peer
        self._credit = CREDIT
        self._written = {FrameType.STDOUT: bytearray(), FrameType.STDERR: bytearray()}
        self._changed = threading.Condition()

    def out(self, data: bytes) -> None:
        """Write to standard output."""
        self._write(FrameType.STDOUT, data)

    def err(self, data: bytes) -> None:
        """Write to standard error."""
        self._write(FrameType.STDERR, data)

    def event(self) -> tuple[FrameType, bytes]:
        """The next frame of the host: input, a signal, a size.

        Takes back and grants credit as an agent does.
        """
        if self._peer is None:
            raise HostGone
        kind, payload = self._peer.receive()
        if kind is FrameType.STDIN:
            self._credit -= len(payload)
            if self._credit < 0:
                raise AssertionError("the host sent more input than its credit allows")
            self._credit += len(payload)
            self._peer.send(FrameType.CREDIT, len(payload).to_bytes(4, "big"))
        return kind, payload

    def input(self) -> bytes:
        """All of standard input."""
        taken = bytearray()
        while True:
            kind, payload = self.event()
            if kind is FrameType.STDIN_EOF:
                return bytes(taken)
            if kind is FrameType.STDIN:
                taken += payload

    def drop_link(self) -> None:
        """Cut the connection; the job goes on."""
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def finish(self, exit_code: int, **fields: object) -> None:
        """End the job; *fields* replace those of its EXIT."""
        out, err = self._written[FrameType.STDOUT], self._written[FrameType.STDERR]
        plain = exit_fields(exit_code=exit_code, stdout_bytes=len(out), stderr_bytes=len(err))
        with self._changed:
            self.exit = {**plain, **fields}
            self._changed.notify_all()
        if self._peer is not None:
            self._peer.send_json(FrameType.EXIT, self.exit)

    def follow(self, peer: GuestPeer, offsets: dict[FrameType, int]) -> None:
        """Send what there is from *offsets* on and what comes, until the job's end."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.exit or any(len(self._written[kind]) > offsets[kind] for kind in offsets),
                    STUCK_SECONDS,
                )
                pieces = {kind: bytes(self._written[kind][offset:]) for kind, offset in offsets.items()}
                ended = self.exit
            for kind, piece in pieces.items():
                send_output(peer, kind, offsets[kind], piece)
                offsets[kind] += len(piece)
            if ended:
                peer.send_json(FrameType.EXIT, ended)
                return

    def _write(self, kind: FrameType, data: bytes) -> None:
        with self._changed:
            offset = len(self._written[kind])
            self._written[kind] += data
            self._changed.notify_all()
        if self._peer is not None:
            send_output(self._peer, kind, offset, data)


Program = Callable[[FakeJob], None]


def succeed(job: FakeJob) -> None:
    """A program that reads its input to the end and exits with 0."""
    if job.request.get("stdin"):
        job.input()
    job.finish(0)


class FakeAgent:
    """A behaviour that keeps to the protocol.

    One object serves any number of connections, as one machine does.
    """

    def __init__(self, program: Program = succeed) -> None:
        self._program = program
        self._lock = threading.Lock()
        self.jobs: dict[str, FakeJob] = {}
        self.requests: list[dict[str, Any]] = []
        self.configured = False

    def __call__(self, peer: GuestPeer) -> None:
        """Serve one connection."""
        peer.greet()
        while True:
            request = peer.request()
            with self._lock:
                self.requests.append(request)
            self._answer(peer, request)
            if request["op"] == "poweroff":
                return

    def _answer(self, peer: GuestPeer, request: dict[str, Any]) -> None:
        op = request["op"]
        if op in ("exec", "attach"):
            self._run(peer, request)
        elif op in ("signal", "forget") and request["job"] not in self.jobs:
            peer.send_json(FrameType.ERROR, {"code": "no_such_job", "message": "no such job"})
        elif op in ANSWERS or op == "jobs":
            peer.send_json(FrameType.RESPONSE, self._rows() if op == "jobs" else ANSWERS[op])
            self.configured = self.configured or op == "configure"
        else:
            peer.send_json(FrameType.ERROR, {"code": "unknown_op", "message": f"no operation {op}"})

    def _rows(self) -> dict[str, Any]:
        rows = [
            {"job": job.job, "pid": 100, "running": job.exit is None, "exit": job.exit} for job in self.jobs.values()
        ]
        return {"jobs": rows}

    def _run(self, peer: GuestPeer, request: dict[str, Any]) -> None:
        with self._lock:
            known = self.jobs.get(request["job"])
            if known is None and request["op"] == "exec":
                job = self.jobs[request["job"]] = FakeJob(peer, request)
        if known is not None:
            peer.send_json(FrameType.RESPONSE, started(request["job"], fresh=False))
            offsets = {
                FrameType.STDOUT: request.get("stdout_offset", 0),
                FrameType.STDERR: request.get("stderr_offset", 0),
            }
            known.follow(peer, offsets)
        elif request["op"] == "attach":
            peer.send_json(FrameType.ERROR, {"code": "no_such_job", "message": "no such job"})
        else:
            peer.send_json(FrameType.RESPONSE, started(request["job"]))
            if request["detach"]:
                job._peer = None  # noqa: SLF001  (an agent and its job are one)
            self._program(job)


ANSWERS: dict[str, dict[str, Any]] = {
    "info": {
        "agent_version": "2.3.0",
        "generation": wire.GENERATION,
        "kernel": "6.1.0-fake",
        "boot_id": "00000000-0000-4000-8000-000000000000",
        "uptime_ms": 1500,
        "boot_ms": {"mounts": 12, "disks": 30},
        "configured": True,
    },
    "configure": {"applied": ["clock", "entropy", "hostname", "machine_id"]},
    "usage": {
        "memory": {"total_kib": 1_000_000, "available_kib": 900_000, "free_kib": 800_000},
        "disk": {"total_bytes": 4 << 30, "free_bytes": 3 << 30},
        "processes": 7,
        "oom_kills": 0,
    },
    "signal": {"delivered": True},
    "forget": {},
    "poweroff": {},
}


def started(job: str, *, fresh: bool = True, stdin_credit: int = CREDIT) -> dict[str, Any]:
    """The answer to exec."""
    return {"job": job, "pid": 100, "started": fresh, "stdin_credit": stdin_credit}


def exit_fields(**fields: object) -> dict[str, Any]:
    """An EXIT object: a success, but for *fields*."""
    plain = {
        "exit_code": 0,
        "signal": 0,
        "timed_out": False,
        "causes": [],
        "error": "",
        "duration_ms": 5,
        "stdout_bytes": 0,
        "stderr_bytes": 0,
        "stdout_dropped": 0,
        "stderr_dropped": 0,
    }
    return {**plain, **fields}


def send_output(peer: GuestPeer, kind: FrameType, offset: int, data: bytes) -> None:
    """Send *data* as frames of a stream that has reached *offset*."""
    for place in range(0, len(data), CHUNK):
        peer.send(kind, (offset + place).to_bytes(8, "big") + data[place : place + CHUNK])
