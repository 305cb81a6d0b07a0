"""``Pyro``: everything pyro does, for programs. Synchronous and thread-safe; results are plain dictionaries."""

import copy
import importlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pyro_mcp.config import Settings, load
from pyro_mcp.config.settings import DRIVERS
from pyro_mcp.engine.machines import INSTALL_SECONDS, Context, Machines
from pyro_mcp.engine.runs import Runs
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.sweep import sweep
from pyro_mcp.engine.template_store import TemplateStore
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress, Silent
from pyro_mcp.model import (
    DEFAULT_DISK_MIB,
    DEFAULT_MEM_MIB,
    DEFAULT_VCPU_COUNT,
    MachineSpec,
    PrunedTemplates,
    RunResult,
    RuntimeParts,
    TemplateRecord,
    check_between,
)
from pyro_mcp.paths import Paths
from pyro_mcp.sdk.environments import EnvironmentMethods
from pyro_mcp.sdk.handles import making_task, making_vm
from pyro_mcp.sdk.machines import MachineMethods
from pyro_mcp.sdk.tasks import TaskMethods

if TYPE_CHECKING:  # what a plain run does not need is imported where it is used: a run takes less time than the imports
    from pyro_mcp.engine.doctor import DoctorReport
    from pyro_mcp.engine.pool import Pool

ACTIVE_MOST = 10_000
READY_MOST = 64


class Pyro(EnvironmentMethods, MachineMethods, TaskMethods):
    """One user's machines, tasks and environments.

    *base_dir* moves the state (default ``$XDG_STATE_HOME/pyro-mcp``), *cache_dir* the environments (default
    ``PYRO_ENVIRONMENT_CACHE_DIR``, else below ``$XDG_CACHE_HOME``). *progress* is told of long work.
    *pool*: so many machines of the kind that ``run_in_vm`` was last asked for are kept ready, in the background and
    while memory allows; worth it for a process that lives long. Close such a Pyro, or use it as a context manager.
    *own_vms*: machines made by ``create_vm`` die with this process, as those of ``run_in_vm`` do.
    *backend_name* (``firecracker``, ``qemu``) and *max_active_vms* go before the settings ``PYRO_DRIVER`` and
    ``PYRO_MAX_ACTIVE_VMS``. *manager*: another Pyro, whose state and settings this one shares; ``VmManager`` is the
    older name of the class, as which it is made for that.
    Every method raises a ``PyroError``: a ValueError for a wrong argument, a RuntimeError for what could not be done.
    Any number of threads may use one Pyro.
    """

    def __init__(  # noqa: PLR0913 - the contract's parameters, and ours
        self,
        manager: "Pyro | None" = None,
        *,
        backend_name: str | None = None,
        max_active_vms: int | None = None,
        base_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
        own_vms: bool = False,
        pool: int = 0,
    ) -> None:
        if manager is not None:
            if pool or any(
                given is not None for given in (backend_name, max_active_vms, base_dir, cache_dir, settings)
            ):
                raise InvalidRequest("a Pyro with a manager has the manager's state, settings and pool")
            vars(self).update(vars(manager.variant(progress=progress, own_vms=own_vms or None)))
            return
        paths = Paths.of_user(
            state=Path(base_dir).expanduser().absolute() if base_dir else None,
            environments=Path(cache_dir).expanduser().absolute() if cache_dir else None,
        )
        values = _chosen(settings or load(), backend_name, max_active_vms)
        self._paths = paths
        self._settings = values
        self._progress: Progress = progress or Silent()
        self._environments = Environments(paths, values)
        self._opened: Context | None = None
        self._opening = threading.Lock()
        self._own_vms = own_vms
        self._pool = self._pool_of(check_between("pool", pool, (0, READY_MOST))) if pool else None

    def _pool_of(self, size: int) -> "Pool":
        from pyro_mcp.engine.pool import Pool

        return Pool(lambda: self._machines, size)

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

    task = making_task(TaskMethods.create_task)
    vm = making_vm(MachineMethods.create_vm)

    @property
    def manager(self) -> "Pyro":
        """This Pyro: what ``Pyro(manager)`` and ``create_server(manager)`` take."""
        return self

    @property
    def progress(self) -> Progress:
        """Who is told of long work."""
        return self._progress

    @property
    def state_directory(self) -> Path:
        """Where the state is kept."""
        return self._paths.state

    def variant(self, *, progress: Progress | None = None, own_vms: bool | None = None) -> "Pyro":
        """The same machines, tasks and environments, with another listener, or another life for new machines."""
        other = copy.copy(self)
        other._opened = None  # noqa: SLF001 - another of this class
        other._opening = threading.Lock()  # noqa: SLF001
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
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> Context:
        context = Context(self._paths, self._settings, Store(self._paths.database), self._environments)
        # Who has none does not wait for what they need.
        if context.store.has_tasks() or _holds_something(self._paths.tasks):
            from pyro_mcp.engine.tasks.service import open_state

            swept = open_state(context)
        else:
            swept = sweep(context)
        return context._replace(expired=frozenset(swept.expired))

    def _take_expired(self) -> list[str]:
        with self._opening:
            context = self._opened or self._open()
            self._opened = context._replace(expired=frozenset())
        return sorted(context.expired)

    @property
    def _machines(self) -> Machines:
        return Machines(self._context)

    @property
    def _runs(self) -> Runs:
        return Runs(self._context, self._pool)


def _holds_something(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(entries)
    except FileNotFoundError:
        return False


def _chosen(settings: Settings, backend_name: str | None, max_active_vms: int | None) -> Settings:
    """*settings*, but for what was asked for by argument."""
    changes: dict[str, Any] = {}
    if backend_name is not None:
        if backend_name not in DRIVERS:
            raise InvalidRequest(
                f"backend_name must be one of {', '.join(DRIVERS)}, not {backend_name!r:.40}",
                remedy="To run on the host itself where no machine can, give allow_host_compat=True to the call.",
            )
        changes["driver"] = backend_name
    if max_active_vms is not None:
        changes["max_active_vms"] = check_between("max_active_vms", max_active_vms, (0, ACTIVE_MOST))
    return settings._replace(**changes)
