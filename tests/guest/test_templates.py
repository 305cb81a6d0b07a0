"""Templates with real guests: each resumed machine is one of its own, and no trouble with a template fails a run."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyro_mcp.drivers.vmm_user import FIRST_UID
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.template_store import TemplateStore
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import APPLICATION, Paths
from pyro_mcp.sdk import Pyro

from .conftest import Cli, said_in, start_pyro

pytestmark = pytest.mark.guest

MACHINES = 20
AT_ONCE = 2
CLOCK_MOST = 0.05
CLOCK_TRIES = 8
# What a program sees of the machine's identity, each line with its name; then the time, as often as it is asked.
IDENTITY = r"""
echo first=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
echo device=$(head -c 16 /dev/random | od -An -tx1 | tr -d ' \n')
echo uuid=$(cat /proc/sys/kernel/random/uuid)
echo perl=$(perl -e 'print rand')
echo machine=$(cat /etc/machine-id)
echo boot=$(cat /proc/sys/kernel/random/boot_id)
echo host=$(hostname)
echo name=$(cat /etc/hostname)
echo temporary=$(mktemp -u)
while read -r _; do date +%s.%N; done
"""
UNIQUE = ("first", "device", "uuid", "perl", "machine", "boot", "host", "name", "temporary")


@pytest.fixture
def own_cache(home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Environments, kernel and empty disks of the shared cache; templates of this test's own."""
    cache = tmp_path / "own"
    (cache / APPLICATION).mkdir(parents=True)
    for name in ("runtime", "scratch", "environments"):
        (cache / APPLICATION / name).symlink_to(home.cache / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("PYRO_NO_TEMPLATES", raising=False)  # this is what is tested here, whatever the rest runs with
    return Paths.of_user()


def names(paths: Paths) -> list[str]:
    """What lies beside the templates, but for locks."""
    return sorted(path.name for path in paths.templates.iterdir() if path.suffix != ".lock")


def has_template(paths: Paths) -> bool:
    return bool(TemplateStore(paths).records())


@dataclass
class Told:
    """What one machine said: its identity by name, and the best bounds of its clock's offset from ours, in seconds."""

    words: dict[str, str]
    offset: float
    uncertainty: float


def interview(pyro: Pyro) -> Told:
    """Ask a new machine who it is and what time it has; as NTP does, the quickest answer bounds the offset best."""
    read, write = os.pipe()
    answered = threading.Semaphore(0)
    output = bytearray()

    def take(data: bytes) -> None:
        output.extend(data)
        for _ in range(data.count(b"\n")):
            answered.release()

    def ask() -> Iterator[tuple[float, float]]:
        for _ in UNIQUE:
            assert answered.acquire(timeout=60)
        for _ in range(CLOCK_TRIES):
            asked = time.time()
            os.write(write, b"\n")
            assert answered.acquire(timeout=60)
            yield asked, time.time()

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(pyro.run_in_vm, environment="debian:12", command=IDENTITY, stdin=read, on_stdout=take)
        try:
            times = list(ask())
        finally:
            os.close(write)
        result = run.result(60)
        os.close(read)
    assert result["exit_code"] == 0, result["stderr"]
    lines = output.decode().splitlines()
    words = dict(line.split("=", 1) for line in lines[: len(UNIQUE)])
    bounds = [
        (float(guest) - (asked + got) / 2, (got - asked) / 2)
        for guest, (asked, got) in zip(lines[len(UNIQUE) :], times, strict=True)
    ]
    return Told(words, *min(bounds, key=lambda bound: bound[1]))


def test_twenty_resumed_machines_share_no_identity_and_have_the_hosts_time(own_cache: Paths) -> None:
    pyro = Pyro()
    pyro.build_template(environment="debian:12")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(lambda _: interview(pyro), range(MACHINES)))
    for name in UNIQUE:
        values = [one.words[name] for one in told]
        assert len(set(values)) == MACHINES, (name, values)
        assert all(values)
    for one in told:
        assert re.fullmatch(r"[0-9a-f]{32}", one.words["machine"])
        assert one.words["host"] == one.words["name"]
        assert abs(one.offset) <= CLOCK_MOST + one.uncertainty, one
    assert len(pyro.list_templates()) == 1
    assert names(own_cache) == [pyro.list_templates()[0]["key"]]


def test_the_second_machine_goes_on_from_the_template_the_first_one_made(own_cache: Paths, cli: Cli) -> None:
    first = cli("run", "debian:12", "--", "git --version")
    assert first.code == 0
    assert "phase=template" in first.errors
    assert has_template(own_cache)
    with_template = vmm_command_line(own_cache)
    assert b"-incoming" in with_template
    again = cli("run", "debian:12", "--", "git --version")
    assert (again.code, again.text) == (0, first.text)
    assert "phase=template" not in again.errors


def command_line_of(paths: Paths, machine: str) -> bytes:
    """That of the VMM of a machine."""
    running = Store(paths.database).get(machine).running
    assert running is not None
    return Path(f"/proc/{running.vmm.pid}/cmdline").read_bytes()


def vmm_command_line(paths: Paths) -> bytes:
    """That of a machine that was just started."""
    pyro = Pyro()
    machine = pyro.create_vm(environment="debian:12")["vm_id"]
    try:
        pyro.start_vm(machine)
        return command_line_of(paths, machine)
    finally:
        pyro.delete_vm(machine)


def test_without_templates_every_machine_boots(own_cache: Paths, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
    assert cli("run", "debian:12", "--", "true").code == 0
    assert not own_cache.templates.exists() or not has_template(own_cache)
    assert b"-incoming" not in vmm_command_line(own_cache)


def test_a_machine_that_was_stopped_boots_with_its_own_disk(own_cache: Paths) -> None:
    pyro = Pyro()
    machine = pyro.create_vm(environment="debian:12")["vm_id"]
    pyro.start_vm(machine)
    assert has_template(own_cache)
    assert b"-incoming" in command_line_of(own_cache, machine)
    first_boot = said_in(machine, "echo own > /root/own; cat /proc/sys/kernel/random/boot_id")
    pyro.stop_vm(machine)
    pyro.start_vm(machine)
    assert b"-incoming" not in command_line_of(own_cache, machine)
    assert said_in(machine, "cat /proc/sys/kernel/random/boot_id") != first_boot
    assert pyro.exec_vm(machine, command="cat /root/own")["stdout"] == "own\n"


def test_the_vmm_may_read_the_templates_memory_and_not_write_it(own_cache: Paths) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives the VMM a user of its own")
    record = Pyro().build_template(environment="debian:12")
    memory = own_cache.template(record["key"]).memory
    program = (
        f"import os, sys; os.setgroups([]); os.setgid({FIRST_UID}); os.setuid({FIRST_UID})\n"
        "for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):\n"
        "    try:\n"
        "        os.close(os.open(f'/proc/self/fd/{sys.argv[1]}', flags))\n"
        "        print('opened')\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    with memory.open("rb") as stream:
        number = stream.fileno()
        argv = [sys.executable, "-I", "-c", program, str(number)]
        done = subprocess.run(argv, pass_fds=[number], capture_output=True, timeout=60, check=True)
    assert done.stdout.split() == [b"opened", b"refused", b"refused"]


@pytest.mark.parametrize("name", ["memory.bin", "state.bin"])
def test_a_truncated_file_is_noticed_and_the_template_made_again(own_cache: Paths, cli: Cli, name: str) -> None:
    key = Pyro().build_template(environment="debian:12")["key"]
    path = own_cache.template(key).directory / name
    os.truncate(path, path.stat().st_size // 2)
    done = cli("run", "debian:12", "--", "echo fine")
    assert (done.code, done.text) == (0, "fine\n")
    assert "phase=template" in done.errors
    assert TemplateStore(own_cache).records()[0]["intact"]


def test_a_template_that_does_not_resume_is_dropped_and_the_machine_boots(own_cache: Paths, cli: Cli) -> None:
    key = Pyro().build_template(environment="debian:12")["key"]
    files = own_cache.template(key)
    damaged = bytearray(files.state.read_bytes())
    damaged[:4096] = os.urandom(4096)
    files.state.write_bytes(damaged)
    record = json.loads(files.record.read_text())
    for path in (files.state,):  # as if it had been so from the beginning
        status = path.stat()
        record["files"][path.name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    files.record.write_text(json.dumps(record))
    done = cli("run", "debian:12", "--", "echo fine")
    assert (done.code, done.text) == (0, "fine\n")
    assert "The template could not be used" in done.errors
    assert names(own_cache) == [f"{key}.failed"]
    again = cli("run", "debian:12", "--", "echo fine")
    assert (again.code, "phase=template" in again.errors) == (0, True)
    assert names(own_cache) == [key]


def test_a_host_on_which_no_template_works_makes_one_twice_and_then_boots(own_cache: Paths, cli: Cli) -> None:
    key = Pyro().build_template(environment="debian:12")["key"]
    TemplateStore(own_cache).prune()
    for _ in range(2):
        TemplateStore(own_cache).failed(key, "resume", "it hangs")
    done = cli("run", "debian:12", "--", "echo fine")
    assert (done.code, done.text) == (0, "fine\n")
    assert "No template is made for now (it hangs); the machine boots." in done.errors
    assert "phase=template" not in done.errors


def test_two_builders_at_once_make_one_template_and_both_runs_succeed(own_cache: Paths) -> None:
    runs = [start_pyro("run", "debian:12", "--", "echo fine") for _ in range(2)]
    for process in runs:
        out, errors = process.communicate(timeout=240)
        assert (process.returncode, out) == (0, b"fine\n"), errors
    assert len(TemplateStore(own_cache).records()) == 1
    assert len(names(own_cache)) == 1


def test_kill_minus_nine_of_a_builder_leaves_nothing_after_the_next_run(own_cache: Paths, cli: Cli) -> None:
    process = start_pyro("run", "debian:12", "--", "true")
    try:
        assert until(lambda: any(own_cache.templates.glob(".partial-*/memory.bin")), Deadline.after(60))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = cli("run", "debian:12", "--", "echo fine")
    assert (done.code, done.text) == (0, "fine\n")
    assert len(names(own_cache)) == 1
    assert Store(own_cache.database).all() == ([], [])


def test_a_place_where_no_template_can_be_made_is_a_note_and_not_a_failure(own_cache: Paths, cli: Cli) -> None:
    own_cache.templates.write_bytes(b"")  # a file in the directory's place
    done = cli("run", "debian:12", "--", "echo fine")
    assert (done.code, done.text) == (0, "fine\n")
    assert "No template could be made" in done.errors


@pytest.fixture
def small_disk(own_cache: Paths) -> Iterator[Path]:
    """The directory of the templates on a filesystem of its own, with room for the memory of one machine."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small filesystem")
    place = own_cache.templates
    place.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1700m", "tmpfs", place], check=True, timeout=60)
    yield place
    subprocess.run(["umount", place], check=True, timeout=60)


def test_a_disk_that_gets_full_while_a_template_is_made_is_a_note_and_not_a_failure(small_disk: Path) -> None:
    process = start_pyro("run", "debian:12", "--", "echo fine")
    assert until(lambda: any(small_disk.glob(".partial-*/memory.bin")), Deadline.after(60))
    with (small_disk / "ballast").open("wb") as ballast:
        size = 0
        with contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(ballast.fileno(), size, 1 << 20)
                size += 1 << 20
    out, errors = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, b"fine\n"), errors
    assert b"No template could be made" in errors
    assert list(small_disk.glob(".partial-*")) == []


def test_templates_are_listed_built_and_pruned(own_cache: Paths, cli: Cli) -> None:
    built = cli("template", "build", "--json", "debian:12")
    record = json.loads(built.text)
    assert record["intact"]
    assert record["environment"] == "debian:12"
    assert json.loads(cli("template", "list", "--json").text) == {"templates": [record]}
    assert record["key"][:12] in cli("template", "list").text
    assert json.loads(cli("doctor", "--json").text)["templates"]["count"] == 1
    pruned = json.loads(cli("template", "prune", "--json").text)
    assert pruned["deleted_templates"] == [record["key"]]
    assert names(own_cache) == []
