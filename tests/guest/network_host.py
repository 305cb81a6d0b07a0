"""The host of a world of namespaces (tests/network_world.py), and pyro on it: root's or a normal user's."""

import contextlib
import os
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.network_world import World

from pyro_mcp.paths import Paths

from .conftest import CACHE, ROOT, Ended, pyro_argv

RUN_SECONDS = 240.0
TUN = Path("/dev/net/tun")
USER = 1000
# What setpriv itself starts, it starts with root's right to walk every directory.
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env")
# Who runs pyro, and the way out it finds: root's depends on whether the host forwards.
KINDS = ("veth", "pasta", "user")
ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the world of these tests")
# Each word is a host; says what its web server said, or `closed`.
LOOK = """
for host in "$@"; do
  said=$(timeout 5 bash -c "exec 3<>/dev/tcp/$host/80"' && echo -e "GET / HTTP/1.0\\r\\n\\r" >&3 && tail -n 1 <&3' 2>&-)
  echo "$host: ${said:-closed}"
done
"""

# Answers so many clients as it is told, and ends.
SERVER = (
    "use IO::Socket::INET; $|=1; my $s=IO::Socket::INET->new(LocalAddr=>q(127.0.0.1),LocalPort=>80,Listen=>9) or die;"
    " print qq(ready\\n); for (1..$ARGV[0]) { my $c=$s->accept; my $r=<$c>; print $c qq(said $r); close $c }"
)


@dataclass(frozen=True, slots=True)
class Host:
    """The host of a world, and pyro on it. *kind* is one of KINDS; *python*: a program in the place of ours."""

    world: World
    kind: str
    python: tuple[str, ...] = (sys.executable,)
    state: Path | None = None

    @property
    def paths(self) -> Paths:
        """Where its state is."""
        return Paths.of_user(state=self.state) if self.state else Paths.of_user()

    def argv(self, *words: str) -> list[str]:
        """The command line of a pyro command on this host."""
        return self.world.inside([*self.python, *pyro_argv(words)[1:]])

    def pyro(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Ended:
        """A pyro command, run to its end."""
        variables = [f"{name}={value}" for name, value in (env or {}).items()]
        argv = self.world.inside(["env", *variables, *self.python, *pyro_argv(words)[1:]])
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=RUN_SECONDS, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def script(self, text: str, *words: str) -> str:
        """What a Python program prints that uses the SDK on this host."""
        done = subprocess.run(
            self.world.inside([*self.python, "-c", text, *words]),
            capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def look(self, *hosts: str, options: tuple[str, ...] = ("--network",)) -> dict[str, str]:
        """What a guest gets from the web server of each host."""
        words = ("run", "-i", *options, "--timeout-seconds", "120", "debian:12", "--", "bash", "-s", *hosts)
        ended = self.pyro(*words, stdin=LOOK)
        assert ended.code == 0, ended.errors
        return seen(ended.text)


def seen(text: str) -> dict[str, str]:
    """What LOOK printed."""
    lines = (line.partition(": ") for line in text.splitlines())
    return {host: said for host, _, said in lines}


@contextlib.contextmanager
def world_of(kind: str, directory: Path) -> Iterator[Host]:
    """A world whose pyro is of *kind*; root's keeps its state where the environment says."""
    if kind == "user":
        with _users_world() as host:
            yield host
        return
    with World(directory, forwards=kind == "veth") as world:
        yield Host(world, kind)


@contextlib.contextmanager
def _users_world() -> Iterator[Host]:
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
                yield Host(world, "user", (*AS_USER, *own, python), state=root / "state/pyro-mcp")
        finally:
            TUN.chmod(mode)


def _user_runs(python: str) -> bool:
    """Whether a normal user can run *python*, and it is of our version."""
    ask = [*AS_USER, python, "-c", "import sys; print(sys.version_info[:2])"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False).stdout
    return said == f"{sys.version_info[:2]}\n"
