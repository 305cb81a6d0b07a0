"""A world for the tests of guest networks, in network namespaces of its own: nothing leaves this machine.

``World`` starts this file as a program. It is a host at 5.6.7.8 with a web server of its own; behind it an "internet"
that has every address there is: a web server at each, also at the private ones and at the metadata service's, with TLS
and without, a web proxy at one, and a DNS server at 1.1.1.1. The program ends with its stdin.

``directory/sites/NAME`` is what the web servers have for the name they are asked by. Their certificate is for all names
and from an authority of this world's own, ``World.authority``.
"""

import ctypes
import http.client
import http.server
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

NEW_NET = 0x40000000
HOST, ROUTER, RESOLVER = "5.6.7.8", "5.6.7.1", "1.1.1.1"
NAMES = {
    "example.com": "93.184.216.34",
    "other.example": "93.184.216.35",
    "evil.example": "10.9.9.9",
    "packages.example": "93.184.216.36",
    "git.example": "93.184.216.37",
    "index.example": "93.184.216.38",
    "proxy.example": "93.184.216.39",
}
BIG = 16 << 20
PROXY_PORT = 3128
DAYS = "2"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
PROXIED = "X-Proxied"
READY = b"ready\n"
LIBC = ctypes.CDLL(None, use_errno=True)


class World:
    """A context manager. *forwards*: whether its host does, as it must for a pair of devices."""

    def __init__(self, directory: Path, *, forwards: bool) -> None:
        self._directory = directory
        self._forwards = forwards

    @property
    def authority(self) -> Path:
        """The certificate of the authority that all of this world's web servers have theirs from."""
        return self._directory / "authority.pem"

    @property
    def sites(self) -> Path:
        """What the web servers have, by name."""
        return self._directory / "sites"

    def __enter__(self) -> Self:
        certify(self._directory)
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


def certify(directory: Path) -> None:
    """An authority, and a certificate with its key for every name of the world."""
    authority, names = ["-CA", "authority.pem", "-CAkey", "authority.key"], [f"DNS:{name}" for name in NAMES]
    for name, subject, words in (
        ("authority", "/CN=authority of the test", ["-addext", "keyUsage=critical,keyCertSign"]),
        (
            "web",
            "/CN=web",
            [
                *authority,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                f"subjectAltName={','.join(names)}",
            ],
        ),
    ):
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
        make = ["openssl", "req", "-x509", *KEY, "-days", DAYS, "-subj", subject, *words, *files]
        subprocess.run(make, cwd=directory, check=True, capture_output=True)


class Web(http.server.BaseHTTPRequestHandler):
    """What the site has; ``/big`` is big, ``/bytes/N`` are so many, everything else says whose address was asked."""

    sites = Path()

    def do_GET(self) -> None:
        site = self.sites / self.headers.get("Host", "").partition(":")[0]
        file = (site / urllib.parse.unquote(self.path.partition("?")[0]).lstrip("/")).resolve()
        file = file / "index.html" if file.is_dir() else file
        if self.path == "/big":
            self.answer(200, bytes(BIG))
        elif self.path.startswith("/bytes/"):
            self.answer(200, bytes(int(self.path.rpartition("/")[2])))
        elif not site.is_relative_to(self.sites) or site == self.sites or not site.is_dir():
            proxied = " by a proxy" if self.headers.get(PROXIED) else ""
            self.answer(200, f"this is {self.connection.getsockname()[0]}{proxied}\n".encode())
        elif file.is_file() and file.is_relative_to(site.resolve()):
            self.answer(200, file.read_bytes(), "text/html" if file.suffix == ".html" else "application/octet-stream")
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
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


class Proxy(Web):
    """Asks the site for its client, in plain HTTP, and says that it did."""

    def do_GET(self) -> None:
        scheme, _, rest = self.path.partition("://")
        host, _, path = rest.partition("/")
        if scheme != "http" or host not in NAMES:
            return self.answer(400, b"")
        site = http.client.HTTPConnection(NAMES[host], 80)
        site.request("GET", f"/{path}", headers={"Host": host, PROXIED: "yes"})
        found = site.getresponse()
        return self.answer(found.status, found.read())


def serve(address: str, port: int, handler: type[Web], context: ssl.SSLContext | None = None) -> None:
    """In this thread's namespace; an empty *address* is every one it has."""
    server = http.server.ThreadingHTTPServer((address, port), handler)
    if context is not None:  # each connection shakes hands in its own thread
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def serve_web(directory: Path) -> None:
    """At every address of this thread's namespace."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "web.pem", directory / "web.key")
    serve("", 80, Web)
    serve("", 443, Web, context)


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


def in_namespace(namespace: int, do: Callable[[], None]) -> None:
    """Run *do* with this thread in *namespace*; the sockets it makes stay there."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert LIBC.setns(namespace, NEW_NET) == 0
    do()
    assert LIBC.setns(back, NEW_NET) == 0
    os.close(back)


def internet(directory: Path) -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{ROUTER}/24", "dev", "down0")
    run("ip", "link", "set", "down0", "up")
    run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo")
    serve_web(directory)
    serve(NAMES["proxy.example"], PROXY_PORT, Proxy)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((RESOLVER, 53))
    threading.Thread(target=serve_names, args=(names,), daemon=True).start()


def main(directory: Path, *, forwards: bool) -> None:
    Web.sites = directory / "sites"
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
    serve_web(directory)
    in_namespace(outside, lambda: internet(directory))
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), forwards=sys.argv[2] == "1")
