"""Machines whose agent was replaced by a hostile one (agent/hostile), and the limits the host keeps all the same."""

import contextlib
import os
import select
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.firecracker.plan import METRICS_LIMIT
from pyro_mcp.drivers.launcher import CONSOLE_LIMIT, LOG_LIMIT
from pyro_mcp.engine.channels import Channels
from pyro_mcp.engine.publish.in_run import forwarded, listening
from pyro_mcp.engine.publish.ports import Port
from pyro_mcp.errors import GuestRefused, MachineFault, ProgramMissing, PyroError
from pyro_mcp.guest.identity import Identity
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId, resident_mib
from pyro_mcp.host.wait import until
from pyro_mcp.runtime.initramfs import Entry, newc
from pyro_mcp.testing.bench import Bench, Machine, expect

PROGRAM = Path("tests", "_bin", "hostile-guest")  # in the checkout; no package takes it
BUILD_SECONDS = 300.0
REGULAR, EXECUTABLE = 0o100644, 0o100755
BEHAVIOURS = (
    *("welcomes", "oversized", "random", "output", "answers", "nesting"),  # ended by the first thing that is wrong
    *("silent", "truncated", "console", "garbage", "zeros"),  # ended by the deadline, or by what may come before HELLO
)
# What it does once it has agreed to a tunnel: each breaks the rules sooner or later.
TUNNELS = ("tunnel-flood", "tunnel-large", "tunnel-nobody")
CLIENTS = 2
GUEST_PORT = 80
PATIENCE = 4.0
SLACK_SECONDS = 10.0
GROWTH_MIB = 96  # what the host's process may grow by: receive buffers, and no more
LOGS_MOST = CONSOLE_LIMIT + LOG_LIMIT + METRICS_LIMIT


def program(checkout: Path) -> Path:
    """The hostile guest of *checkout*, compiled where its Go module and a compiler are here.

    Raises ProgramMissing where they are not and nothing was compiled before, ProgramFailed when it does not compile.
    """
    agent, made = checkout / "agent", checkout.absolute() / PROGRAM
    sources = [path.stat().st_mtime for path in agent.rglob("*.go")]
    beside = Path(sys.prefix) / "bin" / "go"
    go = os.environ.get("PYRO_GO") or (str(beside) if beside.exists() else shutil.which("go"))
    if go is None or not sources:
        if not made.exists():
            raise ProgramMissing("the hostile guest is not compiled, and there is no Go here")
        return made
    if not made.exists() or made.stat().st_mtime < max(sources):
        made.parent.mkdir(exist_ok=True)
        env = {
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
        }
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
        argv = [go, "build", *flags, "-o", str(made), "./hostile"]
        proc.run(argv, Deadline.after(BUILD_SECONDS), env=env, cwd=agent)
    return made


def with_hostile_agent(initramfs: Path, hostile: Path, behaviour: str, target: Path) -> Path:
    """An initramfs in which ``/init`` is *hostile*: the kernel unpacks archives one over the other."""
    over = newc({"behaviour": Entry(REGULAR, behaviour.encode()), "init": Entry(EXECUTABLE, hostile.read_bytes())})
    target.write_bytes(initramfs.read_bytes() + over)
    target.chmod(0o644)
    return target


def is_survived(bench: Bench, hostile: Path, behaviour: str) -> None:
    """Start it, talk to it as the engine does, and check what that cost: time, memory, disk; then end it."""
    target = bench.paths.state / f"initramfs-{behaviour}.cpio"
    with bench.prepared() as good:
        launch = good._replace(initramfs=with_hostile_agent(good.initramfs, hostile, behaviour, target))
        me = ProcessId.current()
        memory = resident_mib(me)
        with _started(bench, launch) as machine:
            expect(until(lambda: _takes_connections(machine), Deadline.after(bench.seconds)), "it did not come up")
            if behaviour in TUNNELS:
                _every_client_is_let_go(machine)
            else:
                _every_operation_fails_in_time(machine)
            grown, launcher = resident_mib(me) - memory, resident_mib(machine.running.launcher)
            expect(max(grown, launcher) < GROWTH_MIB, f"grew by {grown} MiB; the launcher takes {launcher} MiB")
        size = sum(path.lstat().st_size for path in launch.paths.directory.glob("*.log*"))
        expect(size <= LOGS_MOST, f"{size} bytes of logs")


@contextlib.contextmanager
def _started(bench: Bench, launch: Launch) -> Iterator[Machine]:
    """The machine of *launch*, started by the driver alone: nobody has talked to it yet."""
    started = bench.driver.start(launch, Deadline.after(bench.seconds))
    try:
        yield Machine(
            launch, started.running, Channels(bench.driver.lines(launch.paths, started.running)), bench.driver
        )
    finally:
        bench.driver.destroy(started.running, Deadline.after(30))
        started.close()


def _every_operation_fails_in_time(machine: Machine) -> None:
    """The first words to a guest, and a question: each ends with a typed error, at the latest at its deadline."""
    agent, identity = machine.agent, Identity.fresh(machine.launch.machine_id, resumed=False)
    operations: tuple[Callable[[Deadline], object], ...] = (
        lambda limit: agent.configure(identity, limit),
        agent.usage,
        agent.jobs,
    )
    for ask in operations:
        began = time.monotonic()
        try:
            ask(Deadline.after(PATIENCE))
        except (MachineFault, GuestRefused):
            expect(time.monotonic() - began < PATIENCE + SLACK_SECONDS, "it took too long")
        else:
            raise AssertionError("nonsense was taken for an answer")


def _every_client_is_let_go(machine: Machine) -> None:
    """Clients of a published port that read nothing: each is let go, and leaves room for the next.

    What the guest sends beyond the kernel's buffers waits here up to the window; beyond that it breaks the rules.
    """
    with listening([Port(0, GUEST_PORT)]) as listeners, forwarded(listeners, machine.channels, machine.running):
        place = (listeners[0].port.address, listeners[0].port.host_port)
        for _ in range(CLIENTS):
            with socket.create_connection(place, PATIENCE + SLACK_SECONDS) as client:
                poller = select.poll()
                poller.register(client, select.POLLRDHUP)
                expect(poller.poll((PATIENCE + SLACK_SECONDS) * 1000), "a client was kept")


def _takes_connections(machine: Machine) -> bool:
    """Whether the guest is up: it takes a connection, whatever it does with it."""
    try:
        machine.agent.info(Deadline.after(1.0))
    except PyroError as error:
        return "no connection" not in error.cause
    return True
