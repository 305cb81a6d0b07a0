"""Firecracker with a network in a world of namespaces, jailed and as a normal user; what is killed; published ports."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.network_world import World
from tests.process_tree import descendants, ends

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.network.counters import GATE_LOST

SECONDS = 500.0
END_SECONDS = 60.0
ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the world of this test")
LOOK = """
for host in example.com 10.0.0.1 169.254.169.254 5.6.7.8; do
  to="/dev/tcp/$host/80"
  said=$(timeout 60 bash -c "exec 3<>$to"' && echo -e "GET / HTTP/1.0\\r\\n\\r" >&3 && tail -n 1 <&3' 2>&-)
  echo "$host: ${said:-closed}"
done
"""
ASK = 'exec 3<>/dev/tcp/example.com/80; echo -e "GET / HTTP/1.0\\r\\n\\r" >&3; tail -n 1 <&3'
ANSWER = (
    "use IO::Socket::INET; $|=1; my $s=IO::Socket::INET->new(LocalAddr=>q(127.0.0.1),LocalPort=>80,Listen=>9) or die;"
    " print qq(ready\\n); my $c=$s->accept; my $r=<$c>; print $c qq(said $r);"
)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYRO_BOOT_TIMEOUT_SECONDS", "240")


# The user of the lab (testing/lab/session.py), whose state is where a user's is.
AS_USER = (
    *("setpriv", "--reuid=dev", "--regid=dev", "--init-groups"),
    *("env", "-u", "XDG_STATE_HOME", "HOME=/home/dev"),
)
# Who runs pyro, and whether the host forwards: what does not needs pasta.
WHO = {"root": ((), True), "user": (AS_USER, False)}


@pytest.fixture(params=WHO)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[World, tuple[str, ...]]]:
    """A world, and what a command of its user begins with."""
    start, forwards = WHO[request.param]
    with World(tmp_path, forwards=forwards) as found:
        yield found, start


def run_argv(*options: str, command: str) -> list[str]:
    """A run under Firecracker."""
    options = ("--driver", "firecracker", "--timeout-seconds", "400", *options)
    return [sys.executable, "-m", "pyro_mcp", "run", *options, "debian:12", "--", command]


@ONLY_ROOT
def test_a_guest_of_firecracker_reaches_the_internet_and_nothing_else(host: tuple[World, tuple[str, ...]]) -> None:
    world, start = host
    done = subprocess.run(
        world.inside([*start, *run_argv("-i", "--json", "--network", command="bash")]),
        input=LOOK.encode(), capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    result = json.loads(done.stdout)
    assert result["isolation"]["vmm"] == "firecracker"
    assert ("user_namespace" in result["isolation"]["sandbox"]) == bool(start)
    assert result["network"]["denied"]["private"] > 0
    assert result["stdout"].splitlines() == [
        "example.com: this is 93.184.216.34",
        "10.0.0.1: closed",
        "169.254.169.254: closed",
        "5.6.7.8: closed",
    ]
    assert until(lambda: not world.traces(), Deadline.after(END_SECONDS)), world.traces()


@ONLY_ROOT
@pytest.mark.parametrize("victim", ["firecracker", "gate"])
def test_what_is_killed_leaves_nothing_and_a_lost_way_out_is_told(
    host: tuple[World, tuple[str, ...]], victim: str
) -> None:
    world, start = host
    argv = world.inside([*start, *run_argv("-i", "--network", command="echo up; read x; echo on")])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"up\n"
        processes = descendants(run.pid)
        assert {victim, "launcher", "gate"} <= set(processes), processes
        watched = {name: os.pidfd_open(pid) for name, pid in processes.items()}
        os.kill(processes[victim], signal.SIGKILL)
        lost = victim == "gate"
        # Before its stdin ends, which the guest's command would take for the line it waits for.
        first = ["gate"] if lost else list(watched)
        assert [name for name in first if not ends(watched.pop(name), END_SECONDS)] == []
        output, errors = run.communicate(b"\n" if lost else None, timeout=SECONDS)
        assert (GATE_LOST.encode() in errors, output == b"on\n") == (lost, lost), errors
    assert [name for name, pidfd in watched.items() if not ends(pidfd, END_SECONDS)] == []
    assert until(lambda: not world.traces(), Deadline.after(END_SECONDS)), world.traces()


@ONLY_ROOT
@pytest.mark.parametrize("templates", ["resumed", "booted"])
def test_ten_at_once_each_have_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, templates: str) -> None:
    """All are up before the first asks."""
    fetch = f"echo up; read x; {ASK}"
    with World(tmp_path, forwards=True) as world:
        argv = world.inside(run_argv("-i", "--quiet", "--network", "--mem-mib", "256", command=f"bash -c '{fetch}'"))
        if templates == "booted":
            monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
        else:
            subprocess.run(argv, input=b"\n", capture_output=True, timeout=SECONDS, check=True)
        runs = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(10)]
        assert [run.stdout and run.stdout.readline() for run in runs] == ["up\n"] * len(runs)
        said = [run.communicate("\n", timeout=SECONDS)[0] for run in runs]
        assert said == ["this is 93.184.216.34\n"] * len(runs)
        assert [run.returncode for run in runs] == [0] * len(runs)
        assert until(lambda: not world.traces(), Deadline.after(END_SECONDS)), world.traces()


def test_a_port_of_a_guest_of_firecracker_is_one_of_this_host() -> None:
    argv = run_argv("--quiet", "--publish", "0:80", command=f"perl -e '{ANSWER}'")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        told = run.stderr.readline()
        assert told.startswith("[run] phase=publish address=127.0.0.1:"), told
        assert run.stdout.readline() == "ready\n"
        port = int(told.split("127.0.0.1:")[1].split()[0])
        with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
            client.sendall(b"hello\n")
            assert client.makefile().read() == "said hello\n"
        assert run.wait(SECONDS) == 0
