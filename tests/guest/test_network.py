"""Guests with a network, in a world of the test's own: both ways out, as root and as a normal user, and kill -9."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.network_world import BIG, World
from tests.process_tree import END_SECONDS, descendants, ends

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.network.counters import GATE_LOST

from .conftest import leftovers
from .network_host import KINDS, LOOK, ONLY_ROOT, RUN_SECONDS, SERVER, Host, seen, world_of
from .sites import add_project

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("home"), ONLY_ROOT]
SIDE_BY_SIDE = 10
CLOSED = (
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.7.7",
    "198.18.0.1",
    "5.6.7.8",  # the host itself
    "172.29.1.1",  # the gateway
)


@pytest.fixture(scope="module", params=KINDS)
def host(
    request: pytest.FixtureRequest, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    assert shared_cache
    with world_of(request.param, tmp_path_factory.mktemp("world")) as found:
        yield found


@pytest.fixture
def veth(tmp_path: Path) -> Iterator[Host]:
    with world_of("veth", tmp_path) as found:
        yield found


def test_a_guest_reaches_the_internet_and_nothing_else(host: Host) -> None:
    found = host.look("example.com", "8.8.8.8", "evil.example", *CLOSED)
    assert found.pop("example.com") == "this is 93.184.216.34"
    assert found.pop("8.8.8.8") == "this is 8.8.8.8"
    assert set(found) == {"evil.example", *CLOSED}
    assert set(found.values()) == {"closed"}
    assert until(lambda: not host.world.traces(), Deadline.after(END_SECONDS))  # the kernel's own pace


def test_an_allow_list_opens_its_names_and_nothing_else_and_says_what_it_denied(host: Host) -> None:
    hosts = ("example.com", "93.184.216.34", "other.example", "8.8.8.8")
    words = ("run", "-i", "--allow-host", "example.com:80", "--json", "debian:12", "--", "bash", "-s", *hosts)
    result = json.loads(host.pyro(*words, stdin=LOOK).stdout)
    assert seen(result["stdout"]) == {
        "example.com": "this is 93.184.216.34",
        "93.184.216.34": "this is 93.184.216.34",
        "other.example": "closed",
        "8.8.8.8": "closed",
    }
    assert result["network"]["denied"]["unlisted"] > 0
    assert result["network"]["refused_names"] == ["other.example"]
    assert result["network"]["problem"] == ""
    assert "network_namespace" in result["isolation"]["sandbox"]


def test_learning_names_what_a_run_needed_and_that_suffices(host: Host) -> None:
    words = ("run", "-i", "--network-policy", "learn", "debian:12", "--", "bash", "-s", "example.com", "8.8.8.8")
    ended = host.pyro(*words, stdin=LOOK)
    (line,) = [line for line in ended.errors.splitlines() if line.startswith("[run] learned: ")]
    options = line.removeprefix("[run] learned: ").split()
    assert options == ["--allow-host", "8.8.8.8:80", "--allow-host", "example.com:80"]
    again = host.look("example.com", "8.8.8.8", "other.example", options=tuple(options))
    assert again == {**seen(ended.text), "other.example": "closed"}
    assert again["example.com"] == "this is 93.184.216.34"


def test_a_guest_without_the_option_has_no_device(host: Host) -> None:
    ended = host.pyro("run", "debian:12", "--", "ls /sys/class/net")
    assert ended.text.split() == ["lo"]


GIT = "git ls-remote https://git.example/project.git main | cut -f 2; env | grep -i -e proxy -e secret; true"


def test_tls_is_believed_by_the_authority_that_was_named_and_by_no_other(host: Host) -> None:
    (host.world.sites / "git.example").mkdir(parents=True)
    add_project(host.world.sites / "git.example")
    of_the_host = {"https_proxy": "http://user:secret@127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    words = ("run", "--allow-host", "git.example", "debian:12", "--", GIT)
    strange = host.pyro(*words, env=of_the_host)
    assert "certificate" in strange.errors
    ended = host.pyro(*words, env={**of_the_host, "PYRO_CA_FILE": str(host.world.authority)})
    assert ended.text == "refs/heads/main\n", ended.errors


PUBLISH = """
import socket, sys, threading
from pyro_mcp import Pyro
from pyro_mcp.host.progress import Silent

def ask(port):
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"hello\\n")
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().strip()

class Told(Silent):
    def phase(self, name, **fields):
        if name == "publish":
            self.port = int(str(fields["address"]).rpartition(":")[2])

told, ready = Told(), threading.Event()
pyro = Pyro(progress=told)
server = f"perl -e '{sys.argv[1]}'"
with pyro.task(environment="debian:12") as task:
    task.exec(f"(setsid {server} 9 >/log 2>&1 &); until grep -q ready /log; do sleep 0.1; done", timeout_seconds=60)
    port = task.publish("0:80")["host_port"]
    print("task:", ask(port))
client = threading.Thread(target=lambda: ready.wait(60) and print("run:", ask(told.port)))
client.start()
done = pyro.run_in_vm(
    environment="debian:12", command=f"{server} 1", timeout_seconds=60, publish=["0:80"],
    on_stdout=lambda _: ready.set(),
)
client.join()
print(done["exit_code"])
"""


def test_ports_of_tasks_and_runs_are_reached_and_need_no_network(host: Host) -> None:
    assert host.script(PUBLISH, SERVER).splitlines() == ["task: said hello", "run: said hello", "0"]


LOST = """
import os, signal
from pathlib import Path
from pyro_mcp import Pyro
from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
pyro = Pyro()
vm = pyro.create_vm(environment="debian:12", network=True)["vm_id"]
pyro.start_vm(vm)
print(pyro.network_info_vm(vm)["outbound_connectivity_expected"])
vmm = Store(Paths.of_user().database).get(vm).running.vmm.pid
children = [int(pid) for file in Path(f"/proc/{vmm}/task").glob("*/children") for pid in file.read_text().split()]
(gate,) = (pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")[1:2] == [b"gate"])
os.kill(gate, signal.SIGKILL)
assert until(lambda: not pyro.network_info_vm(vm)["outbound_connectivity_expected"], Deadline.after(20))
print(pyro.network_info_vm(vm)["reason"])
pyro.stop_vm(vm)
pyro.start_vm(vm)
print(pyro.network_info_vm(vm)["outbound_connectivity_expected"])
print(pyro.exec_vm(vm, command="bash -c 'exec 3<>/dev/tcp/example.com/80' && echo reached")["stdout"])
"""


def test_a_machine_that_lost_its_way_out_says_so_and_has_one_when_it_starts_anew(host: Host) -> None:
    assert host.script(LOST).split("\n")[:4] == ["True", GATE_LOST, "True", "reached"]


AGAIN = """
from pyro_mcp import Pyro
pyro = Pyro()
vm = pyro.create_vm(environment="debian:12", allow_hosts=["example.com:80"])["vm_id"]
pyro.start_vm(vm)
pyro.stop_vm(vm)
pyro.start_vm(vm)
print(pyro.exec_vm(vm, command={command!r})["stdout"])
"""


def test_a_stopped_machine_has_the_same_policy_when_it_starts_again(veth: Host) -> None:
    script = f"cat >/tmp/look <<'END'\n{LOOK}\nEND\nbash /tmp/look example.com 8.8.8.8"
    said = veth.script(AGAIN.format(command=script))
    assert said.split("\n")[:2] == ["example.com: this is 93.184.216.34", "8.8.8.8: closed"]


POOLED = """
import sys
from pyro_mcp import Pyro
look = sys.argv[1]
with Pyro(pool=1) as pyro:
    for allowed in (["example.com:80"], ["example.com:80"], ["other.example:80"]):
        done = pyro.run_in_vm(environment="debian:12", command=look, allow_hosts=allowed, timeout_seconds=120)
        assert pyro.wait_for_pool(100)
        print(done["network"]["allow_hosts"], *done["stdout"].splitlines(), sep="|")
"""


def test_machines_of_a_pool_have_the_policy_they_are_asked_for(veth: Host) -> None:
    script = f"cat >/tmp/look <<'END'\n{LOOK}\nEND\nbash /tmp/look example.com other.example"
    one, other = "example.com: this is 93.184.216.34", "other.example: this is 93.184.216.35"
    assert veth.script(POOLED, script).splitlines() == [
        f"['example.com:80']|{one}|other.example: closed",
        f"['example.com:80']|{one}|other.example: closed",
        f"['other.example:80']|example.com: closed|{other}",
    ]


FETCH = """
cat /sys/class/net/eth0/address
read go
exec 3<>/dev/tcp/example.com/80
echo -e "GET /big HTTP/1.0\\r\\n\\r" >&3
wc -c <&3
"""


@pytest.mark.parametrize("cold", ["", "1"], ids=["resumed", "cold"])
def test_machines_side_by_side_have_an_address_each(veth: Host, cold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_NO_TEMPLATES", cold)
    options = ("--network", "--mem-mib", "256", "--timeout-seconds", "180", "debian:12", "--")
    if not cold:
        assert veth.pyro("run", *options, "true").code == 0  # the template is there from now on
    words = (*options, "bash", "-c", FETCH)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(veth.argv("run", "-i", *words), **pipes) for _ in range(SIDE_BY_SIDE)]  # type: ignore[call-overload]
    assert len({run.stdout.readline() for run in runs}) == SIDE_BY_SIDE  # all are up, each with a device of its own
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    sizes = [int(run.communicate(timeout=RUN_SECONDS)[0]) for run in runs]
    assert all(size > BIG for size in sizes)
    assert [run.returncode for run in runs] == [0] * SIDE_BY_SIDE
    assert until(lambda: not veth.world.traces(), Deadline.after(END_SECONDS)), veth.world.traces()


@pytest.mark.parametrize(
    ("program", "package", "forwards"), [("/usr/sbin/nft", "nftables", True), ("/usr/bin/pasta", "passt", False)]
)
def test_a_network_that_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, program: str, package: str, *, forwards: bool
) -> None:
    with World(tmp_path, forwards=forwards) as world:
        world.ask("mount", "--bind", "/dev/null", program)
        ended = Host(world, "").pyro("run", "--network", "--json", "debian:12", "--", "true")
    assert ended.code == 125
    failure = json.loads(ended.stdout)
    assert failure["code"] == "network_unavailable"
    assert package in failure["remedy"]


# An nft that can list, as what looks at the host before does, and takes no rules: as on a kernel without them.
NO_RULES = """#!/bin/sh
case "$*" in *list*) exec {kept} "$@";; esac
echo "Error: Could not process rule: No such file or directory" >&2
exit 1
"""
NO_PASTA = """#!/bin/sh
echo "Couldn't open tun device: not here" >&2
exit 1
"""
BROKEN = {
    "/usr/sbin/nft": (NO_RULES, True, "modprobe", "Could not process rule"),
    "/usr/bin/pasta": (NO_PASTA, False, "passt", "Couldn't open tun device"),
}


@pytest.mark.parametrize("program", BROKEN)
def test_a_network_that_fails_when_it_is_made_is_told_in_its_makers_words(tmp_path: Path, program: str) -> None:
    text, forwards, remedy, words = BROKEN[program]
    kept, broken = tmp_path / "kept", tmp_path / "broken"
    kept.write_bytes(Path(program).read_bytes())
    broken.write_text(text.format(kept=kept))
    for file in (kept, broken):
        file.chmod(0o755)
    with World(tmp_path, forwards=forwards) as world:
        world.ask("mount", "--bind", str(broken), program)
        ended = Host(world, "").pyro("run", "--network", "--json", "debian:12", "--", "true")
        assert until(lambda: not world.traces(), Deadline.after(END_SECONDS)), world.traces()
    failure = json.loads(ended.stdout)
    assert (ended.code, failure["code"]) == (125, "network_unavailable")
    assert remedy in failure["remedy"]
    assert words in json.dumps(failure)


VICTIMS = {
    "veth": ("pyro", "launcher", "qemu-system-x86_64", "gate", "nft"),
    "pasta": ("launcher", "gate", "pasta"),
    "user": ("pyro", "launcher", "qemu-system-x86_64", "gate", "pasta"),
}


def test_whatever_is_killed_leaves_nothing_and_a_lost_way_out_is_told(host: Host) -> None:
    for victim in VICTIMS[host.kind]:
        argv = host.argv("run", "-i", "--network", "debian:12", "--", "echo up; read x; echo on")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, **pipes) as run:  # type: ignore[call-overload]
            assert run.stdout.readline() == b"up\n"
            processes = {"pyro": run.pid, **descendants(run.pid)}
            assert {victim, "launcher", "gate"} <= set(processes), processes
            watched = {name: os.pidfd_open(pid) for name, pid in processes.items() if name != "pyro"}
            os.kill(processes[victim], signal.SIGKILL)
            lost = victim in ("gate", "nft", "pasta")  # the machine goes on without a network
            # Before its stdin ends, which the guest's command would take for the line it waits for.
            assert [name for name in (["gate"] if lost else list(watched)) if not ends(watched.pop(name))] == [], victim
            output, errors = run.communicate(b"\n" if lost else None, timeout=RUN_SECONDS)
            assert (GATE_LOST.encode() in errors, output == b"on\n") == (lost, lost), (victim, errors)
        assert [name for name, pidfd in watched.items() if not ends(pidfd)] == [], victim
        assert until(lambda: not host.world.traces(), Deadline.after(END_SECONDS)), (victim, host.world.traces())
    host.pyro("doctor")  # sweeps
    assert until(lambda: not leftovers(host.paths), Deadline.after(END_SECONDS))
