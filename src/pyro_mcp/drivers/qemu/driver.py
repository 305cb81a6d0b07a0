"""The QEMU driver."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pyro_mcp.drivers import launcher
from pyro_mcp.drivers.base import Availability, Capabilities, Launch, Lines, RunningVmm, Snapshot, Started
from pyro_mcp.drivers.failed_start import ended_on_failure
from pyro_mcp.drivers.qemu import snapshots
from pyro_mcp.drivers.qemu.lines import SerialLines
from pyro_mcp.drivers.qemu.plan import LINKS, plan
from pyro_mcp.drivers.vmm_user import vmm_identity
from pyro_mcp.host.cpu import cpu_identity
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.kvm import KvmReport
from pyro_mcp.host.proc import find, search_path
from pyro_mcp.host.processes import namespaces_of_its_own
from pyro_mcp.model import Isolation
from pyro_mcp.paths import MachinePaths

PROGRAM = "qemu-system-x86_64"
# Those that a machine with a network is in, by their names in /proc.
NAMESPACES = {"net": "network", "user": "user"}


class QemuDriver:
    """Machines under QEMU: with KVM where *kvm* says that it works, else in plain software emulation.

    *in_parallel*: whether the program at a path may emulate several processors at the same time; asked when it matters.
    """

    def __init__(
        self, kvm: KvmReport, tsc_khz: Callable[[], int | None], in_parallel: Callable[[Path], bool] = lambda _: False
    ) -> None:
        self._kvm = kvm
        self._tsc_khz = tsc_khz
        self._in_parallel = in_parallel

    @property
    def capabilities(self) -> Capabilities:
        """See ``Driver``."""
        return Capabilities("qemu", "guest_serial", LINKS, snapshots=True)

    @property
    def accelerator(self) -> str:
        """``kvm`` or ``tcg``."""
        return "kvm" if self._kvm.usable else "tcg"

    def availability(self) -> Availability:
        """See ``Driver``."""
        if shutil.which(PROGRAM, path=search_path()) is None:
            return Availability(
                usable=False,
                accelerator=self.accelerator,
                reason=f"{PROGRAM} is not installed",
                remedy="Run `pyro setup`, or install the package qemu-system-x86.",
            )
        reason = "KVM works" if self._kvm.usable else f"software emulation, because {self._kvm.reason}"
        return Availability(usable=True, accelerator=self.accelerator, reason=reason)

    def isolation(self, running: RunningVmm | None = None) -> Isolation:
        """See ``Driver``."""
        # The same for each, as QEMU refuses to start without its sandbox; but for the network of those that have one.
        sandbox = ["seccomp", "no_new_privs"]
        if os.geteuid() == 0:
            sandbox.append("own_uid")
        if running is not None:
            own = namespaces_of_its_own(running.vmm.pid)
            sandbox += [f"{name}_namespace" for kind, name in NAMESPACES.items() if kind in own]
        return {"vmm": "qemu", "accelerator": self.accelerator, "sandbox": sandbox}

    def start(self, launch: Launch, deadline: Deadline) -> Started:
        """See ``Driver``."""
        identity = vmm_identity(launch.machine_id)
        if launch.keep_memory_in is not None:
            snapshots.make_memory(launch.keep_memory_in, launch.mem_mib, identity)
        with contextlib.ExitStack() as on_failure:
            command = networked(self._plan(launch), launch)
            started = launcher.launch(command, launch, deadline, identity=identity)
            on_failure.push(ended_on_failure(launcher.stop, started.running))
            on_failure.callback(started.close)
            resuming = launch.resume_from and snapshots.Resuming(started, launch.resume_from, launch.paths, deadline)
            on_failure.pop_all()
        return resuming or started

    def layout(self, launch: Launch) -> str:
        """See ``Driver``."""
        return snapshots.layout(self._plan(snapshots.nameless(launch)), cpu_identity())

    def snapshot(self, launch: Launch, running: RunningVmm, target: Snapshot, deadline: Deadline) -> None:
        """See ``Driver``."""
        del running  # the control socket is enough
        snapshots.save(launch, target, deadline)

    def _plan(self, launch: Launch) -> launcher.Command:
        program, emulated = find(PROGRAM), not self._kvm.usable
        return plan(
            launch,
            program=program,
            accelerator=self.accelerator,
            tsc_khz=self._tsc_khz() if emulated else None,
            in_parallel=emulated and launch.vcpu_count > 1 and self._in_parallel(Path(program)),
        )

    def lines(self, paths: MachinePaths, running: RunningVmm) -> Lines:
        """See ``Driver``."""
        return SerialLines(paths, running.launcher)

    def reclaim(self, paths: MachinePaths, running: RunningVmm, free_mib: int, deadline: Deadline) -> int:
        """See ``Driver``: QEMU's balloon reports free pages, so there is nothing to ask for."""
        del paths, running, free_mib, deadline
        return 0

    def destroy(self, running: RunningVmm, deadline: Deadline) -> None:
        """See ``Driver``."""
        launcher.stop(running, deadline)


def networked(command: launcher.Command, launch: Launch) -> launcher.Command:
    """*command* in a network namespace, if *launch* has a network; without root that takes a user namespace, too."""
    if launch.network is None:
        return command
    namespaces = ("net",) if os.geteuid() == 0 else ("user", "net")
    return command._replace(namespaces=namespaces, network=launch.network.told(owner=None))
