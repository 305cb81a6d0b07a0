"""``Pyro``: everything pyro does, for programs. Synchronous and thread-safe; results are plain dictionaries."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from pyro_mcp.config import Settings, load
from pyro_mcp.engine.doctor import DoctorReport, examine
from pyro_mcp.engine.machines import INSTALL_SECONDS, Context, Machines
from pyro_mcp.engine.outcome import CommandIO, Sink
from pyro_mcp.engine.runs import Runs
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.sweep import sweep
from pyro_mcp.environments.facade import Environments
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress, Silent
from pyro_mcp.model import (
    DEFAULT_DISK_MIB,
    DEFAULT_MEM_MIB,
    DEFAULT_TIMEOUT_SECONDS,
    DEFAULT_TTL_SECONDS,
    DEFAULT_VCPU_COUNT,
    CommandSpec,
    DeletedVm,
    EnvironmentRecord,
    MachineSpec,
    PrunedEnvironments,
    PulledEnvironment,
    ReapedVms,
    RunResult,
    Terminal,
    VmRecord,
)
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build


class Pyro:
    """One user's machines and environments.

    *base_dir* moves the state (default ``$XDG_STATE_HOME/pyro-mcp``), *cache_dir* the environments (default
    ``PYRO_ENVIRONMENT_CACHE_DIR``, else below ``$XDG_CACHE_HOME``). *progress* is told of long work.
    Every method raises a ``PyroError``: a ValueError for a wrong argument, a RuntimeError for what could not be done.
    """

    def __init__(
        self,
        *,
        base_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        paths = Paths.of_user(
            state=Path(base_dir).expanduser().absolute() if base_dir else None,
            environments=Path(cache_dir).expanduser().absolute() if cache_dir else None,
        )
        values = settings or load()
        self._paths = paths
        self._settings = values
        self._progress: Progress = progress or Silent()
        self._environments = Environments(paths, values)
        self._opened: Context | None = None

    # Environments

    def list_environments(self) -> list[EnvironmentRecord]:
        """All environments of the catalog, by name, each with whether it is installed."""
        return self._environments.records()

    def inspect_environment(self, environment: str) -> EnvironmentRecord:
        """One environment of the catalog."""
        return self._environments.inspect(environment)

    def pull_environment(self, environment: str) -> PulledEnvironment:
        """Install *environment* (and the kernel it runs on) if it is not there; its image is verified."""
        deadline = Deadline.after(INSTALL_SECONDS)
        runtime = build.ensure(self._paths, self._settings, self._progress, deadline)
        installed = self._environments.pull(environment, progress=self._progress, deadline=deadline)
        return {
            **installed.record,
            "kernel_image": str(runtime.kernel),
            "rootfs_image": str(installed.rootfs),
            "source": installed.source,
        }

    def prune_environments(self) -> PrunedEnvironments:
        """Remove what no environment of the catalog needs."""
        return self._environments.prune()

    # Machines

    def create_vm(
        self,
        *,
        environment: str,
        vcpu_count: int = DEFAULT_VCPU_COUNT,
        mem_mib: int = DEFAULT_MEM_MIB,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        network: bool = False,
        allow_host_compat: bool = False,
        disk_mib: int = DEFAULT_DISK_MIB,
        driver: str = "auto",
    ) -> VmRecord:
        """Put a machine on record; it outlives this process, until its *ttl_seconds* are over. Sizes are MiB."""
        spec = MachineSpec(
            environment=environment,
            vcpu_count=vcpu_count,
            mem_mib=mem_mib,
            disk_mib=disk_mib,
            ttl_seconds=ttl_seconds,
            network=network,
            allow_host_compat=allow_host_compat,
            driver=driver,
        )
        return self._machines.create(spec, progress=self._progress, with_caller=False).public()

    def start_vm(self, vm_id: str) -> VmRecord:
        """Bring a machine to where it takes commands."""
        return self._machines.start(vm_id, progress=self._progress).public()

    def exec_vm(  # noqa: PLR0913 - as run_in_vm
        self,
        vm_id: str,
        *,
        command: str,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: int | bytes | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
    ) -> RunResult:
        """Run one command in a started machine; the machine is deleted afterwards."""
        spec = CommandSpec(command, timeout_seconds, env or {}, cwd, user, stdin=stdin is not None)
        with Control() as control:
            io = CommandIO(control, on_stdout=on_stdout, on_stderr=on_stderr, stdin=stdin)
            return self._runs.execute_and_delete(vm_id, spec, io)

    def stop_vm(self, vm_id: str) -> VmRecord:
        """Switch a started machine off; its disk is kept."""
        return self._machines.stop(vm_id).public()

    def delete_vm(self, vm_id: str) -> DeletedVm:
        """End a machine and remove all that is its own."""
        self._machines.delete(vm_id)
        return {"vm_id": vm_id, "deleted": True, "reason": "explicit_delete"}

    def status_vm(self, vm_id: str) -> VmRecord:
        """The state of a machine, also of one that another process made."""
        return self._machines.status(vm_id)

    def reap_expired(self) -> ReapedVms:
        """Delete the machines whose time to live is over."""
        deleted = self._machines.reap_expired()
        return {"deleted_vm_ids": deleted, "count": len(deleted)}

    def run_in_vm(  # noqa: PLR0913 - the contract's parameters
        self,
        *,
        environment: str,
        command: str,
        vcpu_count: int = DEFAULT_VCPU_COUNT,
        mem_mib: int = DEFAULT_MEM_MIB,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        network: bool = False,
        allow_host_compat: bool = False,
        disk_mib: int = DEFAULT_DISK_MIB,
        driver: str = "auto",
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        terminal: Terminal | None = None,
        stdin: int | bytes | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_started: Callable[[], None] | None = None,
        control: Control | None = None,
    ) -> RunResult:
        """Run one command in a machine of its own, which dies with this call, or with this process.

        *command* goes to ``/bin/sh -lc``. *stdin* is a descriptor or bytes. *on_stdout* and *on_stderr* get the
        output as it is produced; the result keeps at most 1 MiB of each stream. *on_started* is called once the
        command is in the guest's
        hands; *control* signals or cancels the command from other threads.
        """
        machine = MachineSpec(
            environment=environment,
            vcpu_count=vcpu_count,
            mem_mib=mem_mib,
            disk_mib=disk_mib,
            ttl_seconds=ttl_seconds,
            network=network,
            allow_host_compat=allow_host_compat,
            driver=driver,
        )
        spec = CommandSpec(command, timeout_seconds, env or {}, cwd, user, terminal, stdin=stdin is not None)
        with contextlib.ExitStack() as stack:
            io = CommandIO(
                control or stack.enter_context(Control()),
                on_stdout=on_stdout,
                on_stderr=on_stderr,
                on_started=on_started,
                stdin=stdin,
            )
            return self._runs.run(machine, spec, io, self._progress)

    # The host

    def doctor(self, *, deep: bool = False) -> DoctorReport:
        """What this host can run and what is missing; *deep* boots a guest to prove it."""
        return examine(self._paths, self._settings, self._environments, deep=self._deep_check if deep else None)

    def _deep_check(self) -> RunResult:
        return self.run_in_vm(environment="debian:12-base", command="echo pyro", mem_mib=256)

    @property
    def _context(self) -> Context:
        """Opened on first use: environments and doctor work although the state cannot be written."""
        if self._opened is None:
            context = Context(self._paths, self._settings, Store(self._paths.database), self._environments)
            sweep(context)
            self._opened = context
        return self._opened

    @property
    def _machines(self) -> Machines:
        return Machines(self._context)

    @property
    def _runs(self) -> Runs:
        return Runs(self._context)
