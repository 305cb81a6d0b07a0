"""What every driver does: the same checks for QEMU and for Firecracker, each a function of a bench or a machine.

Checks in ``ON_A_MACHINE`` leave the machine as usable as it was, so that they may share one.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pyro_mcp.drivers.base import Launch, Snapshot
from pyro_mcp.engine.boot import boot
from pyro_mcp.errors import BootFailed, MachineDied, PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse
from pyro_mcp.host.processes import resident_mib
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.testing.bench import Bench, Machine, Ran, expect

AT_ONCE = 8
PIPED = 2 << 20
USED_MIB = 80
NOTICED_WITHIN = 5.0  # seconds from a VMM's death to the end of what waits for it; the lab is slow
SOCKET_PATH_MOST = 108


def output_and_exit_code_come_back(machine: Machine) -> None:
    """Both streams apart, byte for byte, and the code."""
    ran = machine.run(r"printf 'out\000\377'; printf err >&2; exit 7")
    expect((ran.stdout, ran.stderr, ran.end.exit_code) == (b"out\0\xff", b"err", 7), ran)


def a_signal_is_an_exit_code_of_its_own(machine: Machine) -> None:
    """As a shell has it: 128 and the signal."""
    ran = machine.run("kill -SEGV $$")
    expect((ran.end.exit_code, ran.end.signal) == (139, 11), ran.end)


def a_missing_program_is_127(machine: Machine) -> None:
    """Not an error of the link."""
    expect(machine.run("no-such-program").end.exit_code == 127, "not 127")


def input_reaches_the_command_and_comes_back_whole(machine: Machine) -> None:
    """More than any buffer on the way."""
    data = os.urandom(PIPED)
    ran = machine.run("cat", stdin=data, seconds=120)
    expect(ran.stdout == data, f"{len(ran.stdout)} bytes came back")


def a_timeout_keeps_what_was_written(machine: Machine) -> None:
    """124, and the output so far."""
    ran = machine.run("echo before; sleep 1000", seconds=2)
    expect((ran.end.exit_code, ran.end.timed_out, ran.stdout) == (124, True, b"before\n"), ran)


def operations_run_at_the_same_time(machine: Machine) -> None:
    """Each command waits for the file of the next one: one after the other they would never end."""
    results: dict[int, Ran] = {}

    def one(number: int) -> None:
        mine, next_one = f"/tmp/at-{number}", f"/tmp/at-{(number + 1) % AT_ONCE}"  # noqa: S108 - in the guest
        waiting = f"touch {mine}; until test -e {next_one}; do sleep 0.05; done; echo {number}"
        results[number] = machine.run(waiting, seconds=120)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(all(results[number].stdout == b"%d\n" % number for number in range(AT_ONCE)), results)
    machine.run("rm -f /tmp/at-*")


def the_disk_can_be_written(machine: Machine) -> None:
    """The environment is read-only beneath; what is written is there."""
    ran = machine.run("echo kept >/root/file && cat /root/file && mount | grep -c ' / type overlay'")
    expect(ran.stdout == b"kept\n1\n", ran)


def a_full_disk_is_the_guests_own_trouble(machine: Machine) -> None:
    """The command fails and says why, and the machine goes on."""
    ran = machine.run(
        "dd if=/dev/zero of=/root/big bs=1M count=1000 2>&1; rm -f /root/big; echo still here", seconds=300
    )
    expect(b"No space left" in ran.stdout and ran.stdout.endswith(b"still here\n"), ran)


def randomness_is_there(machine: Machine) -> None:
    """The generator is seeded when the first command runs, and there is a device to seed it from."""
    ran = machine.run("head -c 16 /dev/random | wc -c; head -c 16 /dev/hwrng | wc -c", seconds=20)
    expect(ran.stdout == b"16\n16\n", ran)


def what_it_freed_goes_back_to_the_host(machine: Machine) -> None:
    """By itself or when it is asked, and it may use it again."""
    use = f"dd if=/dev/zero of=/dev/shm/used bs=1M count={USED_MIB} 2>/dev/null && rm /dev/shm/used && echo used"
    expect(machine.run(use, seconds=200).stdout == b"used\n", "it could not be used")
    before = resident_mib(machine.running.vmm)
    if machine.driver.capabilities.reclaims:
        machine.driver.reclaim(machine.launch.paths, machine.running, USED_MIB, Deadline.after(60))
    wanted = before - USED_MIB // 2
    until(lambda: resident_mib(machine.running.vmm) <= wanted, Deadline.after(30))
    now = resident_mib(machine.running.vmm)
    expect(now <= wanted, f"{before} MiB, and then {now}")
    expect(machine.run(use, seconds=200).stdout == b"used\n", "it cannot be used again")


ON_A_MACHINE: tuple[Callable[[Machine], None], ...] = (
    output_and_exit_code_come_back,
    a_signal_is_an_exit_code_of_its_own,
    a_missing_program_is_127,
    input_reaches_the_command_and_comes_back_whole,
    a_timeout_keeps_what_was_written,
    operations_run_at_the_same_time,
    the_disk_can_be_written,
    a_full_disk_is_the_guests_own_trouble,
    randomness_is_there,
    what_it_freed_goes_back_to_the_host,
)


def the_end_may_be_asked_for_twice_and_leaves_nothing(bench: Bench) -> None:
    """``destroy`` is idempotent; the bench looks for processes, mounts and cgroups afterwards."""
    with bench.machine() as machine:
        expect(machine.run("echo hello").stdout == b"hello\n", "no answer")
        for _ in range(2):
            bench.driver.destroy(machine.running, Deadline.after(30))
        expect(not (machine.running.vmm.alive or machine.running.launcher.alive), "a process survives")
        try:
            machine.agent.info(Deadline.after(20))
        except MachineDied:
            return
        raise AssertionError("a dead machine answers")


def a_vmm_that_is_killed_ends_what_waits_for_it_at_once(bench: Bench) -> None:
    """MachineDied, not a timeout."""
    with bench.machine() as machine:
        killer = threading.Timer(1.0, os.kill, (machine.running.vmm.pid, 9))
        killer.start()
        began = time.monotonic()
        try:
            machine.run("sleep 1000", seconds=100)
        except MachineDied:
            expect(time.monotonic() - began < 1 + NOTICED_WITHIN, f"after {time.monotonic() - began:.1f} s")
        else:
            raise AssertionError("the command ended well")
        finally:
            killer.join()


def a_launcher_that_is_killed_takes_the_vmm_with_it(bench: Bench) -> None:
    """Also with SIGKILL, which it cannot act on."""
    with bench.machine() as machine:
        os.kill(machine.running.launcher.pid, 9)
        gone = until(lambda: not machine.running.vmm.alive, Deadline.after(NOTICED_WITHIN))
        expect(gone, "the VMM survives its launcher")
        for directory in Path("/sys/fs/cgroup").glob(f"**/{machine.launch.machine_id}"):
            # Nobody was left to remove it; the driver's next start does, once it is a minute old.
            until(lambda place=directory: _removed(place), Deadline.after(NOTICED_WITHIN))  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return not directory.exists()
    return True


def a_guest_that_goes_off_is_a_machine_that_died(bench: Bench) -> None:
    """The agent's poweroff ends the VMM."""
    with bench.machine() as machine:
        machine.agent.poweroff(Deadline.after(60))
        expect(until(lambda: not machine.running.vmm.alive, Deadline.after(60)), "the VMM goes on")


def the_length_of_paths_does_not_matter(bench: Bench) -> None:
    """A socket's address holds 108 bytes; state directories may be deeper."""
    deep = bench.paths.state / ("d" * SOCKET_PATH_MOST)
    paths = Paths(deep, bench.paths.cache, bench.paths.environments)
    with replace(bench, paths=paths).machine() as machine:
        expect(machine.run("true").end.exit_code == 0, "no answer")


def a_corrupted_kernel_is_a_typed_error(bench: Bench) -> None:
    """With evidence, and nothing runs afterwards."""
    bad = bench.paths.state / "vmlinux"
    bad.write_bytes(b"no kernel" * 1000)
    bad.chmod(0o644)
    with bench.prepared(kernel=bad) as launch:
        error = _failure(replace(bench, seconds=20.0), launch)
        expect(error.details or "kernel" in error.cause, error.as_dict())


def a_corrupted_environment_is_a_typed_error(bench: Bench) -> None:
    """The guest's console says what it could not mount; the error shows it."""
    bad = bench.paths.state / "rootfs.squashfs"
    bad.write_bytes(b"hsqs" + os.urandom(1 << 20))
    bad.chmod(0o644)
    with bench.prepared(rootfs=bad) as launch:
        error = _failure(bench, launch)
        expect(isinstance(error, BootFailed), error.as_dict())
        expect(any("boot failed" in line for line in error.details), error.as_dict())


def a_missing_disk_is_a_typed_error(bench: Bench) -> None:
    """The cause names the file or the disk."""
    with bench.prepared() as launch:
        launch.paths.scratch.unlink()
        expect("scratch" in _failure(bench, launch).cause, "the disk is not named")


def _failure(bench: Bench, launch: Launch) -> PyroError:
    try:
        boot(bench.driver, launch, seconds=bench.seconds, started=lambda _: None)
    except PyroError as error:
        return error
    raise AssertionError("it booted")


def a_machine_goes_on_from_a_snapshot(bench: Bench) -> None:
    """Twice from one: the command's traces are there, the two share no random number, and memory comes back."""
    if not bench.driver.capabilities.snapshots:
        return
    place = bench.paths.state / "snapshot"
    place.mkdir(mode=0o700)
    with bench.prepared(keep_memory_in=place / "memory") as launch:
        target = Snapshot(place / "state", place / "memory", place / "scratch", bench.driver.layout(launch))
        with bench.started(launch) as machine:
            machine.run("echo before >/root/trace")
            bench.driver.snapshot(launch, machine.running, target, Deadline.after(120))
    with _gone_on_from(bench, target) as machine:
        first = _numbers(machine)
    with _gone_on_from(bench, target) as machine:
        second = _numbers(machine)
        what_it_freed_goes_back_to_the_host(machine)
    expect(not first & second, f"two machines share their random numbers: {first & second}")


@contextlib.contextmanager
def _gone_on_from(bench: Bench, target: Snapshot) -> Iterator[Machine]:
    with bench.prepared(resume_from=target) as launch:
        launch.paths.scratch.unlink()
        copy_sparse(target.scratch, launch.paths.scratch)
        expect(bench.driver.layout(launch) == target.layout, "another layout")
        with bench.started(launch) as machine:
            yield machine


def _numbers(machine: Machine) -> set[bytes]:
    """What nobody else may have: from the generator, from the device, and the id of the boot."""
    ran = machine.run(
        "cat /root/trace; for from in urandom hwrng; do head -c 16 /dev/$from | od -An -tx1; done;"
        " cat /proc/sys/kernel/random/boot_id"
    )
    trace, *numbers = ran.stdout.splitlines()
    expect(trace == b"before" and len(set(numbers)) == 3, ran)
    return set(numbers)


def what_is_in_force_is_told(bench: Bench) -> None:
    """The isolation of a machine that runs is no weaker than what was announced."""
    with bench.machine() as machine:
        announced, found = bench.driver.isolation(), bench.driver.isolation(machine.running)
        expect(set(announced["sandbox"]) <= set(found["sandbox"]), (announced, found))


ON_A_BENCH: tuple[Callable[[Bench], None], ...] = (
    the_end_may_be_asked_for_twice_and_leaves_nothing,
    a_vmm_that_is_killed_ends_what_waits_for_it_at_once,
    a_launcher_that_is_killed_takes_the_vmm_with_it,
    a_guest_that_goes_off_is_a_machine_that_died,
    the_length_of_paths_does_not_matter,
    a_corrupted_kernel_is_a_typed_error,
    a_corrupted_environment_is_a_typed_error,
    a_missing_disk_is_a_typed_error,
    a_machine_goes_on_from_a_snapshot,
    what_is_in_force_is_told,
)
