"""A world for the tests of guest networks, in network namespaces of its own: nothing leaves this machine.

``World`` starts this file as a program. It is a host at 5.6.7.8 with a web server of its own; behind it an "internet"
that has every address there is: a web server at each, also at the private ones and at the metadata service's, and a
DNS server at 1.1.1.1. The program ends with its stdin.
"""

import ctypes
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

NEW_NET = 0x40000000
HOST, ROUTER, RESOLVER = "5.6.7.8", "5.6.7.1", "1.1.1.1"
NAMES = {"example.com": "93.184.216.34", "other.example": "93.184.216.35", "evil.example": "10.9.9.9"}
BIG = 16 << 20
READY = b"ready\n"
LIBC = ctypes.CDLL(None, use_errno=True)


class World:
    """A context manager. *forwards*: whether its host does, as it must for a pair of devices."""

    def __init__(self, directory: Path, *, forwards: bool) -> None:
        self._directory = directory
        self._forwards = forwards

    def __enter__(self) -> Self:
        words = [sys.executable, __file__, str(self._directory), str(int(self._forwards))]
        self._program = subprocess.Popen(
            ["unshare", "--net", "--mount", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == READY
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.communicate()

    def inside(self, argv: Sequence[str]) -> list[str]:
        """*argv* as a command line that runs on the world's host."""
        pid = self._program.pid
        return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", *argv]

    def ask(self, *argv: str) -> str:
        """What a program on the world's host prints."""
        return subprocess.run(self.inside(argv), check=True, capture_output=True, text=True).stdout

    def traces(self) -> list[str]:
        """The devices, tables and routes of guests that the host has."""
        devices = [line.split()[0] for line in self.ask("ip", "-br", "link").splitlines()]
        tables = self.ask("nft", "list", "tables").splitlines()
        routes = [line for line in self.ask("ip", "route").splitlines() if line.startswith("198.18.")]
        return [*(name for name in devices if name.startswith("py")), *tables, *routes]


class Web(http.server.BaseHTTPRequestHandler):
    """Says whose address it was asked at; ``/big`` is big."""

    def do_GET(self) -> None:
        body = bytes(BIG) if self.path == "/big" else f"this is {self.connection.getsockname()[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Keep quiet."""


def answer(question: bytes) -> bytes:
    """A DNS answer to a question with one name (RFC 1035)."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode().lower())
        at += 1 + question[at]
    asked = question[12 : at + 5]
    address = NAMES.get(".".join(labels))
    (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
    records = b""
    if address and kind == 1:
        records = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
    code = 0x8180 if address else 0x8183
    return question[:2] + struct.pack("!HHHHH", code, 1, int(bool(records)), 0, 0) + asked + records


def serve_names(server: socket.socket) -> None:
    while True:
        question, client = server.recvfrom(4096)
        server.sendto(answer(question), client)


def serve_web() -> None:
    """At every address of this thread's namespace."""
    server = http.server.ThreadingHTTPServer(("", 80), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def in_namespace(namespace: int, do: Callable[[], None]) -> None:
    """Run *do* with this thread in *namespace*; the sockets it makes stay there."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert LIBC.setns(namespace, NEW_NET) == 0
    do()
    assert LIBC.setns(back, NEW_NET) == 0
    os.close(back)


def internet() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{ROUTER}/24", "dev", "down0")
    run("ip", "link", "set", "down0", "up")
    run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
    serve_web()
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((RESOLVER, 53))
    threading.Thread(target=serve_names, args=(names,), daemon=True).start()


def main(directory: Path, *, forwards: bool) -> None:
    run("mount", "--make-rprivate", "/")
    resolv = directory / "resolv.conf"
    resolv.write_text(f"nameserver {RESOLVER}\n")
    run("mount", "--bind", str(resolv), os.path.realpath("/etc/resolv.conf"))
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert LIBC.unshare(NEW_NET) == 0
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert LIBC.setns(host, NEW_NET) == 0
    run("ip", "link", "set", "lo", "up")
    run(
        "ip",
        "link",
        "add",
        "up0",
        "type",
        "veth",
        "peer",
        "name",
        "down0",
        "netns",
        f"/proc/{os.getpid()}/fd/{outside}",
    )
    run("ip", "address", "add", f"{HOST}/24", "dev", "up0")
    run("ip", "link", "set", "up0", "up")
    run("ip", "route", "add", "default", "via", ROUTER)
    Path("/proc/sys/net/ipv4/ip_forward").write_text(str(int(forwards)))
    serve_web()
    in_namespace(outside, internet)
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), forwards=sys.argv[2] == "1")
