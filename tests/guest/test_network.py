"""Guests with a network, in a world of the test's own: both ways out, as root and as a normal user, and kill -9."""

import itertools
import json
import os
import select
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.network_world import BIG, World

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

from .conftest import CACHE, ROOT, Ended, leftovers, pyro_argv

pytestmark = [
    pytest.mark.guest,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the world of these tests"),
]
UPLINKS = {"veth": True, "pasta": False}  # by what the host has to do for them: forward
RUN_SECONDS = 240.0
END_SECONDS = 20.0
TUN = Path("/dev/net/tun")
USER = 1000
# What setpriv itself starts, it starts with root's right to walk every directory.
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env")
SIDE_BY_SIDE = 3
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
# Each word is a host; says what its web server said, or `closed`.
LOOK = """
for host in "$@"; do
  said=$(timeout 5 bash -c "exec 3<>/dev/tcp/$host/80"' && echo -e "GET / HTTP/1.0\\r\\n\\r" >&3 && tail -n 1 <&3' 2>&-)
  echo "$host: ${said:-closed}"
done
"""


@dataclass(frozen=True, slots=True)
class Host:
    """The host of a world, and pyro on it."""

    world: World
    uplink: str
    program: tuple[str, ...] = tuple(pyro_argv([]))

    def pyro(self, *words: str, stdin: str = "") -> Ended:
        """A pyro command, run to its end."""
        argv = self.world.inside([*self.program, *words])
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=RUN_SECONDS, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def look(self, *hosts: str, options: tuple[str, ...] = ("--network",)) -> dict[str, str]:
        """What a guest gets from the web server of each host."""
        words = ("run", "-i", *options, "--timeout-seconds", "120", "debian:12", "--", "bash", "-s", *hosts)
        ended = self.pyro(*words, stdin=LOOK)
        assert ended.code == 0, ended.errors
        lines = (line.partition(": ") for line in ended.text.splitlines())
        return {host: said for host, _, said in lines}


@pytest.fixture(scope="module", params=UPLINKS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with World(tmp_path_factory.mktemp("world"), forwards=UPLINKS[request.param]) as world:
        yield Host(world, request.param)


@pytest.fixture
def veth(tmp_path: Path) -> Iterator[Host]:
    with World(tmp_path, forwards=True) as world:
        yield Host(world, "veth")


def test_a_guest_reaches_the_internet_and_nothing_else(host: Host) -> None:
    seen = host.look("example.com", "8.8.8.8", "evil.example", *CLOSED)
    assert seen.pop("example.com") == "this is 93.184.216.34"
    assert seen.pop("8.8.8.8") == "this is 8.8.8.8"
    assert set(seen) == {"evil.example", *CLOSED}
    assert set(seen.values()) == {"closed"}
    assert host.world.traces() == []


def test_an_allow_list_opens_its_names_and_nothing_else(host: Host) -> None:
    options = ("--allow-host", "example.com:80", "--json")
    words = (
        "run",
        "-i",
        *options,
        "debian:12",
        "--",
        "bash",
        "-s",
        "example.com",
        "93.184.216.34",
        "other.example",
        "8.8.8.8",
    )
    result = json.loads(host.pyro(*words, stdin=LOOK).stdout)
    said = dict(line.split(": ") for line in result["stdout"].splitlines())
    assert said == {
        "example.com": "this is 93.184.216.34",
        "93.184.216.34": "this is 93.184.216.34",
        "other.example": "closed",
        "8.8.8.8": "closed",
    }
    assert result["network"]["denied"]["unlisted"] > 0
    assert result["network"]["refused_names"] == ["other.example"]


def test_a_guest_without_the_option_has_no_device(host: Host) -> None:
    ended = host.pyro("run", "debian:12", "--", "ls /sys/class/net")
    assert ended.text.split() == ["lo"]


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
    said = veth.world.ask(sys.executable, "-c", AGAIN.format(command=script))
    assert said.split("\n")[:2] == ["example.com: this is 93.184.216.34", "8.8.8.8: closed"]


FETCH = """
cat /sys/class/net/eth0/address
exec 3<>/dev/tcp/example.com/80
echo -e "GET /big HTTP/1.0\\r\\n\\r" >&3
wc -c <&3
"""


def test_machines_side_by_side_have_an_address_each(veth: Host) -> None:
    words = ["run", "-i", "--network", "--timeout-seconds", "120", "debian:12", "--", "bash"]
    argv = veth.world.inside(pyro_argv(words))
    runs = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(SIDE_BY_SIDE)
    ]
    outputs = [run.communicate(FETCH, timeout=RUN_SECONDS)[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0] * SIDE_BY_SIDE
    assert len({mac for mac, _ in outputs}) == SIDE_BY_SIDE
    assert all(int(size) > BIG for _, size in outputs)
    assert veth.world.traces() == []


@pytest.fixture
def users_world() -> Iterator[Host]:
    """A world whose pyro is a normal user's, with a home and a cache of that user's own."""
    python = next(filter(_user_runs, (sys.executable, "/usr/bin/python3")), None)
    if python is None:
        pytest.skip("a normal user cannot run this Python, nor has the system one of its version")
    mode = stat.S_IMODE(TUN.stat().st_mode)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("environments", "runtime", "scratch"):
            copied = ["cp", "-a", "--sparse=always", f"{CACHE}/pyro-mcp/{part}", f"{root}/cache/pyro-mcp/"]
            (root / "cache/pyro-mcp").mkdir(parents=True, exist_ok=True)
            subprocess.run(copied, check=True)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", name], check=True)
        path = f"{ROOT}/src:{sysconfig.get_path('purelib')}"
        own = (f"HOME={root}", f"XDG_STATE_HOME={root}/state", f"XDG_CACHE_HOME={root}/cache", f"PYTHONPATH={path}")
        TUN.chmod(0o666)  # as usual systems have it
        try:
            with World(root, forwards=False) as world:
                yield Host(world, "pasta", (*AS_USER, *own, python, "-m", "pyro_mcp"))
        finally:
            TUN.chmod(mode)


def _user_runs(python: str) -> bool:
    """Whether a normal user can run *python*, and it is of our version."""
    ask = [*AS_USER, python, "-c", "import sys; print(sys.version_info[:2])"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    return said == f"{sys.version_info[:2]}\n"


def test_a_normal_users_guest_reaches_the_internet_and_nothing_else(users_world: Host) -> None:
    seen = users_world.look("example.com", *CLOSED)
    assert seen.pop("example.com") == "this is 93.184.216.34"
    assert set(seen) == set(CLOSED)
    assert set(seen.values()) == {"closed"}


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


def descendants(pid: int) -> dict[str, int]:
    """The processes below *pid*, by the name of what they run."""
    found: dict[str, int] = {}
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    for child in map(int, itertools.chain(*children)):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        program = Path(words[0].decode()).name
        found["gate" if words[1:2] == [b"gate"] else "launcher" if words[1:2] == [b"launch"] else program] = child
        found |= descendants(child)
    return found


VICTIMS = {
    "veth": ("pyro", "launcher", "qemu-system-x86_64", "gate", "nft"),
    "pasta": ("launcher", "gate", "pasta"),
}


def test_whatever_is_killed_leaves_nothing(host: Host, home: Paths) -> None:
    for victim in VICTIMS[host.uplink]:
        argv = host.world.inside(pyro_argv(["run", "--network", "debian:12", "--", "echo up; sleep 20"]))
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == b"up\n"
            processes = {"pyro": run.pid, **descendants(run.pid)}
            assert {victim, "launcher", "gate"} <= set(processes), processes
            watched = {name: os.pidfd_open(pid) for name, pid in processes.items() if name != "pyro"}
            os.kill(processes[victim], signal.SIGKILL)
            if victim in ("gate", "nft", "pasta"):  # the machine goes on without a network
                assert run.poll() is None
                run.kill()
            run.communicate(timeout=RUN_SECONDS)
        assert [name for name, pidfd in watched.items() if not _ended(pidfd)] == [], victim
        assert until(lambda: not host.world.traces(), Deadline.after(END_SECONDS)), (victim, host.world.traces())
    host.pyro("doctor")  # sweeps
    assert until(lambda: not leftovers(home), Deadline.after(END_SECONDS))


def _ended(pidfd: int) -> bool:
    """Whether the process ends, as it must by now or in a moment."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    try:
        return bool(poller.poll(END_SECONDS * 1000))
    finally:
        os.close(pidfd)
