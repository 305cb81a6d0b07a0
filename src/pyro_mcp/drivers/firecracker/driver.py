"""The Firecracker driver."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pyro_mcp.drivers import launcher
from pyro_mcp.drivers.base import Availability, Capabilities, Launch, Lines, RunningVmm, Snapshot, Started
from pyro_mcp.drivers.failed_start import ended_on_failure
from pyro_mcp.drivers.firecracker import confinement, snapshots
from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.cell import Cell
from pyro_mcp.drivers.firecracker.confinement import HostConfinement
from pyro_mcp.drivers.firecracker.lines import VsockLines
from pyro_mcp.drivers.firecracker.memory import squeeze
from pyro_mcp.drivers.firecracker.plan import Binaries, command
from pyro_mcp.drivers.firecracker.requests import Request, boot_requests, load_requests
from pyro_mcp.errors import MachineFault, PyroError
from pyro_mcp.host.cpu import cpu_identity
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, storage
from pyro_mcp.host.kvm import EMULATED, KvmReport
from pyro_mcp.host.proc import tail
from pyro_mcp.host.wait import attempts
from pyro_mcp.model import Isolation
from pyro_mcp.paths import MachinePaths
from pyro_mcp.runtime.firecracker import Vmm

API_SECONDS = 20.0  # from the start of the jailer to an API that answers; 60 ms on metal, seconds where KVM is emulated
ENDING_SECONDS = 1.0  # the launcher tells of the end when all is cleaned up
LONGEST_PAUSE = 0.01
LOG_TAIL = 4096
ELSEWHERE = "Use --driver auto, which takes QEMU here; Firecracker needs a host whose KVM runs guests."
MIB = 1 << 20


class FirecrackerDriver:
    """Machines under Firecracker, in the strongest cell that this host allows.

    *find* gives the programs, ``None`` when they are not here; it raises for programs that must not be used.
    """

    def __init__(self, kvm: KvmReport, host: Callable[[], HostConfinement], find: Callable[[], Vmm | None]) -> None:
        self._kvm = kvm
        self._probe = host
        self._find = find

    @property
    def _host(self) -> HostConfinement:
        return self._probe()

    @property
    def capabilities(self) -> Capabilities:
        """See ``Driver``."""
        return Capabilities("firecracker", "guest_vsock", 0, snapshots=True, reclaims=True)

    def availability(self) -> Availability:
        """See ``Driver``."""
        if not self._kvm.usable:
            access = "" if self._kvm.remedy == EMULATED else f"{self._kvm.remedy} "
            remedy = f"{access}{ELSEWHERE}"
            return Availability(
                usable=False, accelerator="kvm", reason=f"KVM is not usable: {self._kvm.reason}", remedy=remedy
            )
        try:
            vmm = self._find()
        except PyroError as error:
            return Availability(usable=False, accelerator="kvm", reason=error.cause, remedy=error.remedy)
        if vmm is None:
            return Availability(
                usable=False,
                accelerator="kvm",
                reason="Firecracker is not installed",
                remedy="Run `pyro runtime install`.",
            )
        return Availability(
            usable=True, accelerator="kvm", reason=f"KVM works, Firecracker {vmm.capabilities.text} ({vmm.source})"
        )

    def only_lacks_programs(self) -> bool:
        """Whether it could run a guest here if its programs were installed."""
        try:
            return self._kvm.usable and self._find() is None
        except PyroError:
            return False

    def isolation(self, running: RunningVmm | None = None) -> Isolation:
        """See ``Driver``: what is in force around *running*, else what will be."""
        words = confinement.expected(self._host) if running is None else confinement.observed(running.vmm, self._host)
        return {"vmm": "firecracker", "accelerator": "kvm", "sandbox": words}

    def start(self, launch: Launch, deadline: Deadline) -> Started:
        """See ``Driver``."""
        vmm = self._vmm()
        cell = confinement.cell_for(self._host, launch)
        _prepare(launch, cell)
        started = launcher.launch(
            command(launch, cell, Binaries(vmm.firecracker, vmm.jailer), largest_file=_largest_file(launch)),
            launch,
            deadline,
            identity=None,
        )
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(started.close)
            on_failure.push(ended_on_failure(launcher.stop, started.running))
            ending = _Ending(started, launch)
            _await_api(launch.paths, ending, deadline.sooner(API_SECONDS))
            Api(launch.paths.api, ending).send_all(_requests(launch, vmm), deadline)
            on_failure.pop_all()
        return started

    def layout(self, launch: Launch) -> str:
        """See ``Driver``."""
        return snapshots.layout(launch, self._vmm(), cpu_identity())

    def snapshot(self, launch: Launch, running: RunningVmm, target: Snapshot, deadline: Deadline) -> None:
        """See ``Driver``."""
        snapshots.save(self._api(launch.paths, running), launch, target, deadline)

    def _api(self, paths: MachinePaths, running: RunningVmm) -> Api:
        return Api(paths.api, lambda: "" if running.vmm.alive else "the virtual machine ended")

    def _vmm(self) -> Vmm:
        vmm = self._find()
        if vmm is None:
            raise MachineFault("Firecracker is not installed", remedy="Run `pyro runtime install`.")
        return vmm

    def lines(self, paths: MachinePaths, running: RunningVmm) -> Lines:
        """See ``Driver``."""
        return VsockLines(paths, running.launcher)

    def reclaim(self, paths: MachinePaths, running: RunningVmm, free_mib: int, deadline: Deadline) -> int:
        """See ``Driver``: not needed where this version reports free pages."""
        if self._vmm().capabilities.free_page_reporting:
            return 0
        return squeeze(self._api(paths, running), running.vmm, free_mib, deadline)

    def destroy(self, running: RunningVmm, deadline: Deadline) -> None:
        """See ``Driver``."""
        launcher.stop(running, deadline)


class _Ending:
    """How a VMM that was just started ended, in words; empty while it runs. The words are kept: they come once."""

    def __init__(self, started: launcher.Launched, launch: Launch) -> None:
        self._started = started
        self._log = launch.paths.vmm_log
        self._words = ""

    def __call__(self, patience: float = ENDING_SECONDS) -> str:
        if not self._words:
            self._words = self._started.ending(Deadline.after(patience))
            if self._words and (said := _last_line(self._log)):
                self._words = f"{self._words}: {said}"
        return self._words


def _requests(launch: Launch, vmm: Vmm) -> tuple[Request, ...]:
    if launch.resume_from is not None:
        return load_requests(vmm.capabilities)
    return boot_requests(launch, vmm.capabilities)


def _prepare(launch: Launch, cell: Cell) -> None:
    """The directories and FIFOs of this start; what an earlier start left in them is gone afterwards."""
    paths = launch.paths
    uid, gid = (cell.identity.uid, cell.identity.gid) if cell.identity else (-1, -1)
    for directory in (paths.run, paths.jail):
        remove_tree(directory)  # Firecracker does not replace a socket that is there
        private_directory(directory)
    with storage(f"preparing {paths.run}"):
        for pipe in (paths.log_pipe, paths.metrics_pipe):
            os.mkfifo(pipe, 0o600)
        for path in (paths.run, paths.log_pipe, paths.metrics_pipe, paths.scratch):
            os.chown(path, uid, gid)


def _largest_file(launch: Launch) -> int:
    """Its disk, or its memory in a snapshot."""
    with storage(f"looking at {launch.paths.scratch}"):
        return max(launch.paths.scratch.stat().st_size, launch.mem_mib * MIB)


def _await_api(paths: MachinePaths, ending: _Ending, deadline: Deadline) -> None:
    """Wait until the API takes connections; MachineFault when the VMM ended instead, or at the *deadline*."""
    for _ in attempts(deadline, longest=LONGEST_PAUSE):
        try:
            launcher.connect(paths.api, deadline.sooner(1.0)).close()
        except OSError:
            if how := ending(patience=0.0):
                raise MachineFault(how) from None
        else:
            return
    raise MachineFault(f"Firecracker did not open its API: {_last_line(paths.vmm_log) or 'it said nothing'}")


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - LOG_TAIL))
            lines = tail(stream.read(LOG_TAIL), 1)
    except OSError:
        return ""
    return lines[0].strip() if lines else ""
