"""Files that are brought to a guest, against what its serial port and its own tar can do, on one machine in one run."""

import os
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_mcp.config import load
from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.launcher import Command, SocketUse
from pyro_mcp.drivers.qemu.driver import QemuDriver
from pyro_mcp.drivers.qemu.plan import FIRST_DESCRIPTOR
from pyro_mcp.engine import choice
from pyro_mcp.engine.workspace import PushOptions, SyncResult, push
from pyro_mcp.environments import Environments
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.host.tsc import tsc_khz
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build
from pyro_mcp.runtime.agent import AGENT
from pyro_mcp.testing.bench import Bench as Machines
from pyro_mcp.testing.bench import Machine

BIG_MIB = 512
MANY, MANY_BYTES, PER_DIRECTORY = 20_000, 1024, 200
SECONDS = 600.0
PORT = "bench.raw"
FIND_PORT = f"P=/dev/$(basename $(dirname $(grep -lx {PORT} /sys/class/virtio-ports/*/name)))"

RAW = f"{BIG_MIB} MiB, raw serial port into a file, sync"
PUSH_BIG = f"{BIG_MIB} MiB in one file, push"
TAR = f"{MANY} files, tar -x in the guest"
PUSH_MANY = f"{MANY} files, push"
PUSH_AGAIN = f"{MANY} files, push with one changed"
PAIRS = {
    "rate of one big file: push / raw serial port": (RAW, PUSH_BIG),
    "rate of many files: push / tar -x in the guest": (TAR, PUSH_MANY),
    "time: push with one changed / first push": (PUSH_AGAIN, PUSH_MANY),
}

Add = Callable[[str, float], None]


class WithRawPort(QemuDriver):
    """QEMU with one more serial port, which the agent does not know."""

    def _plan(self, launch: Launch) -> Command:
        command = super()._plan(launch)
        descriptor = FIRST_DESCRIPTOR + len(command.files)
        argv = (
            *command.argv,
            *("-device", "virtio-serial-device,id=raw,max_ports=2"),
            *("-chardev", f"socket,id=raw,fd={descriptor},server=on,wait=off"),
            *("-device", f"virtserialport,bus=raw.0,nr=1,chardev=raw,name={PORT}"),
        )
        return command._replace(argv=argv, files=(*command.files, SocketUse(raw_socket(launch))))


def raw_socket(launch: Launch) -> Path:
    """Where the host finds the other end of the raw port."""
    return launch.paths.directory / "raw"


@contextmanager
def machine_with_raw_port(state: Path) -> Iterator[Machine]:
    """A machine as a task has it, and the port."""
    user, settings, deadline = Paths.of_user(), load(), Deadline.after(SECONDS)
    kvm = choice.qemu(user)[1]
    runtime = build.ensure(user, settings, Silent(), deadline)
    rootfs = Environments(user, settings).ensure("debian:12", progress=Silent(), deadline=deadline).rootfs
    bench = Machines(
        WithRawPort(kvm, lambda: tsc_khz(user, AGENT)), Paths.of_user(state=state), runtime, rootfs, 60, disk_mib=4096
    )
    with bench.machine(mem_mib=1024) as machine:
        yield machine


def raw(machine: Machine, content: Path) -> None:
    """Send *content* through the port, into a file, with no protocol at all; then sync."""
    size = content.stat().st_size
    with socket.socket(socket.AF_UNIX) as link, content.open("rb") as stream:
        link.connect(str(raw_socket(machine.launch)))
        sender = threading.Thread(target=link.sendfile, args=(stream,))
        sender.start()
        expect_ok(machine, f"{FIND_PORT}; head -c {size} $P > /workspace/raw && sync")
        sender.join()
    arrived = int(expect_ok(machine, "stat -c %s /workspace/raw; rm /workspace/raw; sync"))
    if arrived != size:
        raise SystemExit(f"only {arrived} of {size} bytes came through the raw port")


def expect_ok(machine: Machine, command: str) -> str:
    """What a command writes that must succeed."""
    ran = machine.run(command, seconds=SECONDS)
    if ran.end.exit_code != 0:
        raise SystemExit(f"{command} failed: {ran.stderr.decode(errors='replace')}")
    return ran.stdout.decode()


def pushed(machine: Machine, source: Path, place: str) -> SyncResult:
    """One push."""
    limit = Deadline.after(SECONDS)
    return push(machine.channels, source, place, options=PushOptions(), progress=Silent(), deadline=limit)


def measure_files(add: Add, rounds: int) -> None:
    """All of it, *rounds* times, in turns."""
    with tempfile.TemporaryDirectory(prefix="pyro-bench-") as name:
        place = Path(name)
        big, many, packed = sources(place)
        with machine_with_raw_port(place / "state") as machine:
            pushed(machine, packed.parent, "/workspace/packed")
            for _ in range(rounds):
                timed(add, RAW, lambda: raw(machine, big / "file"))
                timed(add, PUSH_BIG, lambda: pushed(machine, big, "/workspace/big"))
                expect_ok(machine, "rm -r /workspace/big; sync")
                tar = "mkdir /workspace/tar && tar -xf /workspace/packed/many.tar -C /workspace/tar"
                timed(add, TAR, lambda command=tar: expect_ok(machine, command))  # type: ignore[misc]
                timed(add, PUSH_MANY, lambda: pushed(machine, many, "/workspace/many"))
                (many / "000" / "000").write_bytes(os.urandom(MANY_BYTES))
                again: list[SyncResult] = []
                timed(add, PUSH_AGAIN, lambda out=again: out.append(pushed(machine, many, "/workspace/many")))  # type: ignore[misc]
                if again[0].transferred_entries != 1:
                    raise SystemExit(f"the second push moved {again[0].transferred_entries} entries")
                expect_ok(machine, "rm -r /workspace/tar /workspace/many; sync")


def timed(add: Add, name: str, action: Callable[[], object]) -> None:
    """Do it; its time counts for *name*."""
    began = time.perf_counter()
    action()
    add(name, (time.perf_counter() - began) * 1000)


def sources(place: Path) -> tuple[Path, Path, Path]:
    """A directory with one big file, one with many small ones, and the second as an archive."""
    big, many, packed = place / "big", place / "many", place / "packed" / "many.tar"
    for directory in (big, many, packed.parent, place / "state"):
        directory.mkdir()
    with (big / "file").open("wb") as stream:
        for _ in range(BIG_MIB):
            stream.write(os.urandom(1 << 20))
    for number in range(MANY):
        directory = many / f"{number // PER_DIRECTORY:03}"
        directory.mkdir(exist_ok=True)
        (directory / f"{number % PER_DIRECTORY:03}").write_bytes(os.urandom(MANY_BYTES))
    with tarfile.open(packed, "w") as archive:
        archive.add(many, ".")
    return big, many, packed
