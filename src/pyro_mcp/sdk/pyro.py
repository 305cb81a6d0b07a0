"""``Pyro``: everything pyro does, for programs. Synchronous and thread-safe; results are plain dictionaries."""

import contextlib
import copy
import importlib
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pyro_mcp.config import Settings, load
from pyro_mcp.engine.machines import INSTALL_SECONDS, Context, Machines
from pyro_mcp.engine.outcome import CommandIO, Sink
from pyro_mcp.engine.pool import READY_MOST, Pool
from pyro_mcp.engine.runs import Runs
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.sweep import sweep
from pyro_mcp.engine.template_store import TemplateStore
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import InvalidRequest
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
    IsolationLevel,
    MachineSpec,
    NetworkInfo,
    PrunedTemplates,
    ReapedVms,
    RunResult,
    RuntimeParts,
    TemplateRecord,
    Terminal,
    VmRecord,
    check_between,
)
from pyro_mcp.network.policy import parse
from pyro_mcp.paths import Paths
from pyro_mcp.sdk.environments import EnvironmentMethods
from pyro_mcp.sdk.tasks import TaskMethods

if TYPE_CHECKING:  # what a plain run does not need is imported where it is used: a run takes less time than the imports
    from pyro_mcp.engine.doctor import DoctorReport


class Pyro(EnvironmentMethods, TaskMethods):
    """One user's machines, tasks and environments.

    *base_dir* moves the state (default ``$XDG_STATE_HOME/pyro-mcp``), *cache_dir* the environments (default
    ``PYRO_ENVIRONMENT_CACHE_DIR``, else below ``$XDG_CACHE_HOME``). *progress* is told of long work.
    *pool*: so many machines of the kind that ``run_in_vm`` was last asked for are kept ready, in the background and
    while memory allows; worth it for a process that lives long. Close such a Pyro, or use it as a context manager.
    *own_vms*: machines made by ``create_vm`` die with this process, as those of ``run_in_vm`` do.
    Every method raises a ``PyroError``: a ValueError for a wrong argument, a RuntimeError for what could not be done.
    """

    def __init__(
        self,
        *,
        base_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
        own_vms: bool = False,
        pool: int = 0,
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
        self._own_vms = own_vms
        self._pool = Pool(lambda: self._machines, check_between("pool", pool, (0, READY_MOST))) if pool else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the machines that are kept ready. Only a Pyro with a pool has something to close; it works on without."""
        if self._pool is not None:
            self._pool.close()

    def wait_for_pool(self, timeout_seconds: float) -> bool:
        """Wait until as many machines are ready as *pool* says; ``False`` when they are not in time."""
        return self._pool is not None and self._pool.wait(timeout_seconds)

    @property
    def state_directory(self) -> Path:
        """Where the state is kept."""
        return self._paths.state

    def variant(self, *, progress: Progress | None = None, own_vms: bool | None = None) -> "Pyro":
        """The same machines, tasks and environments, with another listener, or another life for new machines."""
        other = copy.copy(self)
        other._opened = None  # noqa: SLF001 - another of this class
        other._progress = progress or self._progress  # noqa: SLF001
        other._own_vms = self._own_vms if own_vms is None else own_vms  # noqa: SLF001
        return other

    def create_server(self, **options: Any) -> Any:  # noqa: ANN401 - MCP's class loads only when it is wanted
        """An MCP server over this; see ``pyro_mcp.mcp_server.server.create_server`` for the options."""
        return importlib.import_module("pyro_mcp.mcp_server.server").create_server(self, **options)

    # Templates

    def list_templates(self) -> list[TemplateRecord]:
        """The templates that machines go on from, the one used last first."""
        return TemplateStore(self._paths).records()

    def build_template(
        self,
        *,
        environment: str,
        vcpu_count: int = DEFAULT_VCPU_COUNT,
        mem_mib: int = DEFAULT_MEM_MIB,
        disk_mib: int = DEFAULT_DISK_MIB,
        driver: str = "auto",
    ) -> TemplateRecord:
        """Make the template of this kind of machine if it is not there, as the first run would. Sizes are MiB."""
        spec = MachineSpec(
            environment=environment, vcpu_count=vcpu_count, mem_mib=mem_mib, disk_mib=disk_mib, driver=driver
        )
        return self._machines.build_template(spec, progress=self._progress)

    def prune_templates(self) -> PrunedTemplates:
        """Remove all templates; machines that run are not hurt, the next of each kind boots and makes it again."""
        gone = TemplateStore(self._paths).prune()
        return {
            "count": len(gone),
            "deleted_templates": [record["key"] for record in gone],
            "freed_mib": sum(record["size_mib"] for record in gone),
        }

    # The runtime: kernel, initramfs, agent, Firecracker

    def list_runtime(self) -> RuntimeParts:
        """The parts machines are started from, and their state; cheap, and nothing is changed."""
        from pyro_mcp.runtime import parts

        return parts.listed(self._paths, full=False)

    def verify_runtime(self) -> RuntimeParts:
        """As ``list_runtime``, with every byte compared with its digest."""
        from pyro_mcp.runtime import parts

        return parts.listed(self._paths, full=True)

    def install_runtime(self) -> RuntimeParts:
        """Fetch and build what is missing or damaged. Raises RuntimeBroken when a part cannot be had."""
        from pyro_mcp.runtime import parts

        parts.install(self._paths, self._settings, self._progress, Deadline.after(INSTALL_SECONDS))
        return parts.listed(self._paths, full=True)

    # Machines

    def create_vm(  # noqa: PLR0913 - the contract's parameters
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
        require_isolation: IsolationLevel = "any",
        allow_hosts: Sequence[str] = (),
        allow_private: Sequence[str] = (),
        network_policy: str | Path | None = None,
    ) -> VmRecord:
        """Put a machine on record; without ``own_vms`` it outlives this process, until its *ttl_seconds* are over.

        Sizes are MiB. *require_isolation* ``hardware``: DriverUnavailable where only software emulation is to be had.
        The parameters of the network are those of ``run_in_vm``.
        """
        spec = MachineSpec(
            environment=environment,
            vcpu_count=vcpu_count,
            mem_mib=mem_mib,
            disk_mib=disk_mib,
            ttl_seconds=ttl_seconds,
            network=parse(network=network, allow_hosts=allow_hosts, allow_private=allow_private, source=network_policy),
            allow_host_compat=allow_host_compat,
            driver=driver,
            require_isolation=require_isolation,
        )
        return self._machines.create(spec, progress=self._progress, with_caller=self._own_vms).public()

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
        on_started: Callable[[], None] | None = None,
        control: Control | None = None,
    ) -> RunResult:
        """Run one command in a started machine; the machine is deleted afterwards. Parameters as ``run_in_vm``."""
        spec = CommandSpec(command, timeout_seconds, env or {}, cwd, user, stdin=stdin is not None)
        with contextlib.nullcontext(control) if control else Control() as own:
            io = CommandIO(own, on_stdout, on_stderr, on_started, stdin)
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

    def network_info_vm(self, vm_id: str) -> NetworkInfo:
        """The network of a machine, and what it was denied so far."""
        from pyro_mcp.engine.network_view import info_of

        return info_of(self._paths, self._machines.living(vm_id))

    def reap_expired(self) -> ReapedVms:
        """Delete the machines whose time to live is over."""
        deleted = self._machines.reap_expired()
        return {"deleted_vm_ids": deleted, "count": len(deleted)}

    def run_in_vm(  # noqa: PLR0913 - the contract's parameters
        self,
        *,
        environment: str,
        command: str | None,
        vcpu_count: int = DEFAULT_VCPU_COUNT,
        mem_mib: int = DEFAULT_MEM_MIB,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        ttl_seconds: int = DEFAULT_TTL_SECONDS,
        network: bool = False,
        allow_host_compat: bool = False,
        disk_mib: int = DEFAULT_DISK_MIB,
        driver: str = "auto",
        require_isolation: IsolationLevel = "any",
        allow_hosts: Sequence[str] = (),
        allow_private: Sequence[str] = (),
        network_policy: str | Path | None = None,
        env: dict[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        terminal: Terminal | None = None,
        stdin: int | bytes | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        on_started: Callable[[], None] | None = None,
        control: Control | None = None,
        publish: Iterable[str] = (),
    ) -> RunResult:
        """Run one command in a machine of its own, which dies with this call, or with this process.

        *command* goes to ``/bin/sh -lc``; ``None``: what the image says it runs. In an image of a registry the shell is
        no login shell, and where there is none the words of *command* are the program and its arguments.
        *stdin* is a descriptor or bytes. *on_stdout* and *on_stderr* get the output as it is produced; the result keeps
        at most 1 MiB of each stream. *on_started* is called once the command is in the guest's hands; *control* signals
        or cancels the command from other threads. *require_isolation* ``hardware``: no software emulation.
        *network*: the public internet. *allow_hosts* (``HOST[:PORT]``): only these. *allow_private* (CIDR): these, too.
        *network_policy*: a file of both lists, or ``learn``. Each turns the network on; NetworkUnavailable without one.
        *publish*: ports of this host that lead to ports of the guest, each as ``[ADDR:]HOSTPORT:GUESTPORT``.
        """
        machine = MachineSpec(
            environment=environment,
            vcpu_count=vcpu_count,
            mem_mib=mem_mib,
            disk_mib=disk_mib,
            ttl_seconds=ttl_seconds,
            network=parse(network=network, allow_hosts=allow_hosts, allow_private=allow_private, source=network_policy),
            allow_host_compat=allow_host_compat,
            driver=driver,
            require_isolation=require_isolation,
        )
        argv = () if command is not None else self._default_command(environment)
        text = shlex.join(argv) if command is None else command
        spec = CommandSpec(text, timeout_seconds, env or {}, cwd, user, terminal, stdin=stdin is not None, argv=argv)
        with contextlib.nullcontext(control) if control else Control() as own:
            io = CommandIO(own, on_stdout, on_stderr, on_started, stdin)
            return self._runs.run(machine, spec, io, self._progress, publish)

    def _default_command(self, environment: str) -> tuple[str, ...]:
        """What the image says it runs."""
        found = self._environments.default_command(
            environment, progress=self._progress, deadline=Deadline.after(INSTALL_SECONDS)
        )
        if not found:
            raise InvalidRequest(
                "command is required after `--`", remedy=f"For instance: pyro run {environment} -- git --version"
            )
        return found

    # The host

    def doctor(self, *, deep: bool = False) -> "DoctorReport":
        """What this host can run and what is missing; *deep* boots a guest to prove it."""
        from pyro_mcp.engine.doctor import examine

        return examine(self._paths, self._settings, self._environments, deep=self._deep_check if deep else None)

    def _deep_check(self) -> RunResult:
        return self.run_in_vm(environment="debian:12-base", command="echo pyro", mem_mib=256)

    @property
    def _context(self) -> Context:
        """Opened on first use: environments and doctor work although the state cannot be written."""
        if self._opened is None:
            context = Context(self._paths, self._settings, Store(self._paths.database), self._environments)
            if self._paths.tasks.exists():
                from pyro_mcp.engine.tasks.service import open_state

                open_state(context)
            else:
                sweep(context)
            self._opened = context
        return self._opened

    @property
    def _machines(self) -> Machines:
        return Machines(self._context)

    @property
    def _runs(self) -> Runs:
        return Runs(self._context, self._pool)
