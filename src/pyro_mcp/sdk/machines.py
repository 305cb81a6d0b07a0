"""The part of ``Pyro`` that works with machines: one command in one of its own, or the steps of a machine's life."""

import contextlib
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pyro_mcp.engine.machines import INSTALL_SECONDS, Machines
from pyro_mcp.engine.outcome import CommandIO, Sink
from pyro_mcp.engine.runs import Runs
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.guest.control import Control
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
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
    ReapedVms,
    RunResult,
    Terminal,
    VmRecord,
)
from pyro_mcp.network.policy import parse
from pyro_mcp.paths import Paths


class MachineMethods:
    """Machines, by id.

    Every method raises a ``PyroError``: UnknownMachine, MachineExpired, WrongState, and what the operation itself
    raises. A machine whose time is over is deleted by whoever sees it first, and that one says MachineExpired (of what
    a ``Pyro`` deletes at its first use: until ``reap_expired`` has told of it). All others say UnknownMachine.
    """

    _paths: Paths
    _progress: Progress
    _environments: Environments
    _own_vms: bool

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
        command: str,
        *,
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
        """Switch a started machine off; its disk is kept, with all that was written. A guest that hangs is ended."""
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
        """Delete the machines whose time to live is over; what the first use of this object deleted is named, too."""
        deleted = [*self._take_expired(), *self._machines.reap_expired()]
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

    def _take_expired(self) -> list[str]:
        """What the first use of this object has deleted because its time was over; told once."""
        raise NotImplementedError

    @property
    def _machines(self) -> Machines:
        raise NotImplementedError

    @property
    def _runs(self) -> Runs:
        raise NotImplementedError
