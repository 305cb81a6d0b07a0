"""The lab's machine: booted with the QEMU driver, used through the agent."""

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyro_mcp.drivers import launcher
from pyro_mcp.drivers.base import Launch, RunningVmm
from pyro_mcp.drivers.qemu import QemuDriver
from pyro_mcp.drivers.qemu.lines import SerialLines
from pyro_mcp.engine.boot import boot
from pyro_mcp.engine.channels import Channels
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.execution import OutputSinks, execute
from pyro_mcp.guest.outcome import Exit, new_job
from pyro_mcp.guest.stdin import BytesStdin
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, private_directory, remove_tree
from pyro_mcp.host.kvm import KvmReport
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.tsc import tsc_khz
from pyro_mcp.model import CommandSpec, new_machine_id
from pyro_mcp.paths import MachinePaths, Paths
from pyro_mcp.runtime.scratch import empty_scratch

# With two that QEMU 7.2 ran at the same time it stood still in one run of two: KVM's kernel patches its scheduler with
# every first and last machine and every first and last limit of a cgroup (drivers/qemu/version). Two that take turns
# are no faster than one.
VCPUS = 1
MEM_MIB = 3072
DISK_MIB = 16 << 10  # sparse
BOOT_SECONDS = 90.0  # it loads forty modules, on a host that may be busy
STOP_SECONDS = 15.0
LINE_SECONDS = 20.0
MARGIN = 30.0
# The lab's machine itself is always emulated: that is what gives it the AMD-V of its own.
NO_KVM = KvmReport(
    exists=False, readable=False, writable=False, usable=False, reason="the lab emulates its processor", remedy=""
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the machine is made of."""

    kernel: Path
    initramfs: Path
    rootfs: Path
    supplies: Path
    agent: Path


class StreamSinks:
    """Output sinks that write both streams to *log* and hand them to *show*."""

    def __init__(self, log: IO[bytes], show: Callable[[bytes], None]) -> None:
        self._log = log
        self._show = show

    def on_stdout(self, data: memoryview) -> None:
        """Take bytes of standard output."""
        self._log.write(data)
        self._log.flush()
        self._show(bytes(data))

    def on_stderr(self, data: memoryview) -> None:
        """Take bytes of standard error."""
        self.on_stdout(data)

    def on_lost(self, stdout: int, stderr: int) -> None:
        """Say that bytes are missing."""
        self.on_stdout(memoryview(f"\n[{stdout + stderr} bytes lost]\n".encode()))


class LabMachine:
    """A lab that runs."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels

    def run(
        self,
        command: str,
        *,
        seconds: float,
        sinks: OutputSinks,
        user: str = "",
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> Exit:
        """Run a shell command as *user* (root by default); it is ended after *seconds*."""
        spec = CommandSpec(command, timeout_seconds=seconds, env=dict(env or {}), cwd="/", user=user)
        source = None if stdin is None else BytesStdin(stdin)
        with self.channels.open(Deadline.after(LINE_SECONDS)) as session:
            return execute(
                session, spec, new_job(), sinks=sinks, stdin=source, deadline=Deadline.after(seconds + MARGIN)
            )

    def output(self, command: str, *, seconds: float = 60.0, user: str = "") -> str:
        """What *command* writes on its standard output. Raises AssertionError when it fails."""
        sinks = CaptureSinks()
        ended = self.run(command, seconds=seconds, sinks=sinks, user=user)
        if ended.exit_code != 0:
            raise AssertionError(f"{command!r} ended with {ended.exit_code}: {sinks.stderr.text()}")
        return sinks.stdout.text()


@dataclass(frozen=True, slots=True)
class Running:
    """A lab's processes and files: all that another process needs to use it."""

    files: MachinePaths
    vmm: RunningVmm

    @property
    def machine(self) -> LabMachine:
        """The way into it."""
        return LabMachine(Channels(SerialLines(self.files, self.vmm.launcher)))

    def end(self, keep_logs: Path | None = None) -> None:
        """End it and prove it; its console and the VMM's log are copied to the directory *keep_logs*."""
        launcher.stop(self.vmm, Deadline.after(STOP_SECONDS))
        if keep_logs is not None:
            _copy_logs(self.files, keep_logs)
        remove_tree(self.files.directory)


def boot_lab(
    paths: Paths, parts: Parts, *, seconds: float, owner: ProcessId | None, keep_logs: Path | None = None
) -> Running:
    """A lab that lives at most *seconds*, and no longer than *owner*.

    Raises BootFailed and what the driver raises; then nothing of it is left, but its logs in *keep_logs*.
    """
    machine_id = new_machine_id()
    files = MachinePaths(private_directory(paths.lab / "machines") / machine_id)
    driver = QemuDriver(NO_KVM, lambda: tsc_khz(paths, parts.agent))
    launch = Launch(
        machine_id=machine_id,
        vcpu_count=VCPUS,
        mem_mib=MEM_MIB,
        kernel=parts.kernel,
        initramfs=parts.initramfs,
        rootfs=parts.rootfs,
        paths=files,
        agent=parts.agent,
        owner=owner,
        deadline_unix_ms=int((time.time() + seconds) * 1000),
        extra_disks=(parts.supplies,),
    )
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(remove_tree, private_directory(files.directory))
        if keep_logs is not None:
            on_failure.callback(_copy_logs, files, keep_logs)
        copy_sparse(empty_scratch(paths, DISK_MIB, Deadline.after(BOOT_SECONDS)), files.scratch)
        running = boot(driver, launch, seconds=BOOT_SECONDS, started=_nobody_asks)
        on_failure.pop_all()
    return Running(files, running)


def _nobody_asks(_: RunningVmm) -> None:
    """The lab is on no record: its launcher ends it with its owner."""


def _copy_logs(files: MachinePaths, target: Path) -> None:
    for log in (files.console, files.vmm_log):
        for part in (log.with_name(f"{log.name}.1"), log):
            with contextlib.suppress(OSError):
                shutil.copyfile(part, target / part.name)
