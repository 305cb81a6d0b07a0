"""Whether a host answers at all, known within seconds whatever its name servers and addresses do."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Sequence

from pyro_mcp.errors import RegistryUnreachable
from pyro_mcp.host import facts
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths

FACT = "unreachable_registries"
REMEMBERED_SECONDS = 300.0


def require_answer(host: str, port: int, seconds: float) -> None:
    """Raise RegistryUnreachable unless one of the addresses of *host* takes a connection within *seconds*.

    The name is looked up in a thread that is left alone when it takes too long: the resolver cannot be stopped.
    """
    deadline = Deadline.after(seconds)
    found: list[object] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True, name=f"look up {host}")
    thread.start()
    thread.join(seconds)
    if not found:
        raise RegistryUnreachable(f"{host} cannot be reached: its name was not resolved within {seconds:g} s")
    if isinstance(found[0], OSError):
        raise RegistryUnreachable(f"{host} cannot be reached: {found[0].strerror or found[0]}")
    reason = _first_connection([row for row in found if isinstance(row, tuple)], deadline)
    if reason:
        raise RegistryUnreachable(f"{host}:{port} cannot be reached: {reason}")


def _first_connection(addresses: Sequence[tuple[object, ...]], deadline: Deadline) -> str:
    """Connect to all *addresses* at the same time; empty when one answers, else why none does."""
    reason = "no connection was made in time"
    poller = select.poll()
    with contextlib.ExitStack() as stack:
        waiting: dict[int, socket.socket] = {}
        for family, kind, protocol, _, address in addresses:
            try:
                sock = stack.enter_context(socket.socket(family, kind, protocol))  # type: ignore[arg-type]
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(address)  # type: ignore[arg-type]
            except OSError as error:
                reason = error.strerror or str(error)
                continue
            poller.register(sock, select.POLLOUT)
            waiting[sock.fileno()] = sock
        while waiting and not deadline.passed:
            for descriptor, _ in poller.poll(deadline.remaining * 1000):
                code = waiting[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return ""
                reason = os.strerror(code)
                poller.unregister(descriptor)
                del waiting[descriptor]
    return reason


def remembered(paths: Paths, registry: str) -> float | None:
    """How many seconds ago *registry* could not be reached; ``None`` when that is long ago or never happened."""
    at = (facts.recall(paths, FACT) or {}).get(registry)
    age = time.time() - at if isinstance(at, int | float) else -1.0
    return age if 0 <= age < REMEMBERED_SECONDS else None


def remember(paths: Paths, registry: str, *, reached: bool) -> None:
    """Keep in mind whether *registry* could be reached."""
    known = facts.recall(paths, FACT) or {}
    if reached and registry not in known:
        return
    rest = {name: at for name, at in known.items() if name != registry}
    facts.remember(paths, FACT, rest if reached else {**rest, registry: time.time()})
