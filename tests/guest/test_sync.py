"""Pushing to and pulling from a real guest."""

import contextlib
import hashlib
import io
import os
import random
import subprocess
import tarfile
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.workspace import PullOptions, PullResult, PushOptions, SyncResult, pull, push
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import ArchiveRefused, SyncConflict, WorkspaceFull
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.execution import execute
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.model import CommandSpec, MachineSpec
from pyro_mcp.paths import Paths

pytestmark = pytest.mark.guest

KILLS = 8
LIST = "cd /workspace && find . | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum"
OUTSIDE = "ls -A / /etc /root /var; sha256sum /etc/passwd"


class Guest:
    """A started machine, as the engine talks to it."""

    def __init__(self, channels: ChannelOpener) -> None:
        self.channels = channels

    def push(self, source: Path, destination: str = "/workspace", **options: object) -> SyncResult:
        """Push with options."""
        wish = PushOptions(**options)  # type: ignore[arg-type]
        limit = Deadline.after(200)
        return push(self.channels, source, destination, options=wish, progress=Silent(), deadline=limit)

    def pull(self, source: str, destination: Path) -> PullResult:
        """Pull."""
        limit = Deadline.after(200)
        return pull(self.channels, source, destination, options=PullOptions(), progress=Silent(), deadline=limit)

    def run(self, command: str) -> str:
        """The output of a command that succeeds."""
        sinks = CaptureSinks()
        with self.channels.open(Deadline.after(30)) as session:
            ended = execute(session, CommandSpec(command, timeout_seconds=200), new_job(), sinks=sinks)
        assert ended.exit_code == 0, sinks.stderr.text()
        return sinks.stdout.text()


@contextlib.contextmanager
def machine(home: Paths, spec: MachineSpec) -> Iterator[Guest]:
    """A machine that is gone afterwards."""
    settings = load()
    machines = Machines(Context(home, settings, Store(home.database), Environments(home, settings)))
    record = machines.create(spec, progress=Silent(), with_caller=True)
    try:
        record = machines.start(record.machine_id, progress=Silent())
        yield Guest(machines.channels(record))
    finally:
        machines.delete(record.machine_id)


@pytest.fixture
def guest(home: Paths) -> Iterator[Guest]:
    """A machine with a small disk."""
    with machine(home, MachineSpec("debian:12", disk_mib=256)) as made:
        yield made


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a virtual environment in it."""
    place = tmp_path / "repository"
    (place / "src").mkdir(parents=True)
    (place / "src" / "note.txt").write_text("first\n")
    (place / "run.sh").write_text("#!/bin/sh\ncat src/note.txt\n")
    (place / "run.sh").chmod(0o755)
    venv.create(place / ".venv", with_pip=False, symlinks=True)
    git = ["git", "-C", str(place), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    return place


def same(first: Path, second: Path) -> bool:
    """Whether two trees have the same names, kinds, modes, times, contents and links."""

    def rows(root: Path) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for path in sorted(root.rglob("*")):
            status = path.lstat()
            content: object = os.readlink(path) if path.is_symlink() else None  # noqa: PTH115 - as it is
            if content is None and path.is_file():
                content = path.read_bytes()
            found.append((str(path.relative_to(root)), status.st_mode, status.st_mtime_ns, status.st_nlink, content))
        return found

    return rows(first) == rows(second)


def test_a_repository_with_a_venv_goes_there_and_comes_back(guest: Guest, repository: Path, tmp_path: Path) -> None:
    (repository / "a\nb").write_text("odd")
    (repository / "-rf").write_text("dash")
    Path(os.fsdecode(os.fsencode(repository) + b"/\xff")).write_text("bytes")
    os.link(repository / "run.sh", repository / "again.sh")
    with (repository / "sparse").open("wb") as stream:
        stream.truncate(400 << 20)
        stream.seek(100 << 20)
        stream.write(b"middle")
    (repository / "empty").mkdir(mode=0o700)
    result = guest.push(repository)
    assert result.transferred_entries == result.entry_count
    assert guest.run("cd /workspace && git status --porcelain | wc -l && ./run.sh && stat -c %h again.sh") == (
        "5\nfirst\n2\n"  # the files that were added since
    )
    assert guest.run("readlink /workspace/.venv/bin/python").strip() == os.readlink(repository / ".venv/bin/python")  # noqa: PTH115
    back = tmp_path / "back"
    guest.run("cd /workspace && git status > /dev/null; git checkout -q .; true")
    guest.push(repository, delete=True)
    guest.pull("/workspace", back)
    assert same(repository, back)
    (repository / "src" / "note.txt").write_text("second\n")
    changed = guest.push(repository)
    assert (changed.transferred_entries, changed.transferred_bytes) == (1, 7)
    assert guest.run("cat /workspace/src/note.txt") == "second\n"


def test_archives_arrive_and_hostile_ones_change_nothing(guest: Guest, repository: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.tgz"
    with tarfile.open(good, "w:gz") as made:
        made.add(repository, ".")
    guest.push(good, "seed")
    assert guest.run("cd /workspace/seed && git status --porcelain && ./run.sh") == "first\n"
    guest.run("ln -s /etc /workspace/seed/etc")  # a guest's own link: what lies below it is not the workspace's
    before, outside = guest.run(LIST), guest.run(OUTSIDE)
    for name, members, refusal, reason in (
        ("upwards", [file("../out")], ArchiveRefused, r"`\.\.` in its path"),
        ("absolute", [file("/etc/passwd")], ArchiveRefused, "absolute path"),
        ("link that leads out", [link("seed/link", "../../etc")], ArchiveRefused, "leads out"),
        ("below a link", [link("seed/link", "src"), file("seed/link/new")], ArchiveRefused, "lies below seed/link"),
        ("below the guest's link", [file("seed/etc/new")], SyncConflict, "/workspace/seed/etc is no directory"),
    ):
        hostile = tmp_path / f"{name}.tar"
        with tarfile.open(hostile, "w") as made:
            for member in (file("harmless"), *members):
                made.addfile(member, io.BytesIO(bytes(member.size)))
        with pytest.raises(refusal, match=reason):
            guest.push(hostile)
        assert (guest.run(LIST), guest.run(OUTSIDE)) == (before, outside), name


def file(name: str) -> tarfile.TarInfo:
    """The header of a file of zeroes."""
    info = tarfile.TarInfo(name)
    info.size = 100
    return info


def link(name: str, target: str) -> tarfile.TarInfo:
    """The header of a symbolic link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_a_full_disk_leaves_the_old_tree_and_says_so(guest: Guest, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for place, size in ((old, 1000), (new, 100 << 20)):
        place.mkdir()
        for name in ("a", "b"):
            (place / name).write_bytes(random.Random(size).randbytes(size))
    guest.push(old)
    before = guest.run(LIST)
    guest.run("dd if=/dev/zero of=/root/fill bs=1M count=60 2>/dev/null; sync")
    with pytest.raises(WorkspaceFull, match="to be pushed"):
        guest.push(new)
    filler = threading.Thread(
        target=guest.run, args=("sleep 0.7; dd if=/dev/zero of=/root/more bs=1M 2>/dev/null; true",)
    )
    guest.run("rm /root/fill")
    filler.start()
    with pytest.raises(WorkspaceFull, match="disk is full"):
        guest.push(new)
    filler.join()
    assert guest.run(LIST) == before
    guest.run('rm /root/more; sync; sleep 1; test -z "$(ls /.pyro/staging)"')
    guest.push(old, delete=True)


def test_two_pushes_at_once_leave_one_tree_of_the_two(guest: Guest, tmp_path: Path) -> None:
    trees = []
    for letter in "ab":
        place = tmp_path / letter
        place.mkdir()
        for number in range(300):
            (place / f"{number}").write_text(letter * (number + 1))
        trees.append(place)
    threads = [threading.Thread(target=guest.push, args=(place,), kwargs={"delete": True}) for place in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guest.run("cat /workspace/* | tr -d '\\n' | fold -w1 | sort -u").strip() in ("a", "b")
    assert guest.run("ls /workspace | wc -l").strip() == "300"


def test_a_client_that_is_killed_at_any_byte_leaves_the_old_tree_or_the_new(guest: Guest, tmp_path: Path) -> None:
    trees = {}
    for letter in "ab":
        place = tmp_path / letter
        place.mkdir()
        for number in range(40):
            (place / f"f{number}").write_bytes(letter.encode() * (number * 10_000 + 1))
        guest.push(place, delete=True)
        trees[guest.run(LIST)] = place
    chance = random.Random(5)
    for turn in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                guest.push(list(trees.values())[turn % 2], delete=True)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0.05, 1.5))
        os.kill(child, 9)
        os.waitpid(child, 0)
        assert guest.run(LIST) in trees
    guest.push(tmp_path / "a", delete=True)
    assert guest.run(LIST) == next(iter(trees))


def test_a_file_larger_than_the_guests_memory_goes_there(home: Paths, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(4 << 20)
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "large").open("wb") as stream:
        for _ in range(80):
            stream.write(data)
    with machine(home, MachineSpec("debian:12", mem_mib=256, disk_mib=1024)) as guest:
        assert guest.push(tree).transferred_bytes == 320 << 20
        end = guest.run(f"stat -c %s /workspace/large; tail -c {len(data)} /workspace/large | sha256sum")
        assert end.split()[:2] == [str(320 << 20), hashlib.sha256(data).hexdigest()]
