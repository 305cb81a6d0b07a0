"""The life of a machine: created, started, stopped, deleted; each step is on record before it is done."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pyro_mcp.config import Settings
from pyro_mcp.drivers.base import Driver, Launch, RunningVmm
from pyro_mcp.drivers.launcher import instruct
from pyro_mcp.engine import choice
from pyro_mcp.engine.boot import boot, resume
from pyro_mcp.engine.capacity import check_capacity, check_file_limit
from pyro_mcp.engine.failures import keep_evidence
from pyro_mcp.engine.networking import check_network, machine_network, make_room, uplink_here
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.template_store import Found
from pyro_mcp.engine.templates import Kind, Templates
from pyro_mcp.environments.facade import Environments
from pyro_mcp.environments.installed import Installed
from pyro_mcp.errors import (
    DriverUnavailable,
    HostFault,
    Interrupted,
    MachineExpired,
    NetworkUnavailable,
    ProgramMissing,
    PyroError,
    UnknownMachine,
    WrongState,
)
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, private_directory, remove_tree
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Progress
from pyro_mcp.host.stopwatch import stage
from pyro_mcp.model import MachineSpec, TemplateRecord, VmRecord, check_machine_id, new_machine_id
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build
from pyro_mcp.runtime.scratch import empty_scratch

if TYPE_CHECKING:  # loaded while the VMM starts
    from pyro_mcp.guest.client import ChannelOpener

INSTALL_SECONDS = 1800.0
SCRATCH_SECONDS = 60.0
DESTROY_SECONDS = 15.0
POWEROFF_SECONDS = 5.0  # until the guest says that it will
WRITE_SECONDS = 60.0  # and until all is on its disk: what it had in memory may be much


class Context(NamedTuple):
    """What every part of the engine works with.

    *expired*: the machines that were deleted for their age when it was opened, as far as nobody was told yet.
    """

    paths: Paths
    settings: Settings
    store: Store
    environments: Environments
    expired: frozenset[str] = frozenset()


class Machines:
    """Machines of one user, known across processes."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.templates = Templates(context.paths, context.settings, context.store, self.delete)

    def create(
        self, spec: MachineSpec, *, progress: Progress, with_caller: bool, machine_id: str | None = None
    ) -> MachineRecord:
        """Put a new machine on record; nothing runs yet.

        *with_caller*: it dies with this process. *machine_id*: its id, if somebody else names it. Raises
        UnknownEnvironment, DriverUnavailable, CapacityReached, NoSpace, and what the installation of the environment
        raises.
        """
        context = self._context
        context.environments.inspect(spec.environment)
        driver = self._driver_for(spec, progress)
        version = None
        if spec.network is not None and driver is not None:
            check_network(context.paths, context.settings)  # rather now than after the environment was fetched
        if driver is not None:
            check_file_limit(disk_mib=spec.disk_mib, mem_mib=spec.mem_mib)
            version = self._install(spec.environment, progress).version
        check_capacity(context.paths, context.settings, mem_mib=spec.mem_mib)
        record = _new_record(spec, driver, version, with_caller=with_caller)
        if machine_id is not None:
            record = replace(record, machine_id=check_machine_id(machine_id))
        context.store.insert(record, most=context.settings.max_active_vms)
        return record

    def start(self, machine_id: str, *, progress: Progress) -> MachineRecord:
        """Bring a created or stopped machine to where it takes commands.

        Raises BootFailed with evidence; the machine is then stopped, and its files are kept until it is deleted.
        """
        self._check_told(machine_id)
        has_disk = self._context.paths.machine(machine_id).scratch.exists()
        record = self._context.store.move(machine_id, "starting", allowed=("created", "stopped"), keeps_disk=has_disk)
        try:
            self._check_life(record)
            if record.execution_mode == "host_compat":
                private_directory(self._context.paths.machine(machine_id).directory)
            else:
                record = self._boot(record, progress)
            started = record.moved("started")
            self._context.store.update(started)
            if started.owner is None and started.running is not None:
                instruct(started.running.launcher, self._context.paths.machine(machine_id).release, "")
        except BaseException:
            with contextlib.suppress(PyroError):  # what a boot began, it has ended itself
                self.settle(record)
            raise
        return started

    def build_template(self, spec: MachineSpec, *, progress: Progress) -> TemplateRecord:
        """Make the template that machines of *spec* go on from, if it is not there. Raises what goes wrong."""
        context = self._context
        context.environments.inspect(spec.environment)
        driver = self._choose(spec, progress)
        version = self._install(spec.environment, progress).version
        record = _new_record(spec, driver, version, with_caller=True)
        key = self.templates.build(self._kind(record, progress), progress).key
        return next(template for template in self.templates.store.records() if template["key"] == key)

    def stop(self, machine_id: str) -> MachineRecord:
        """Switch a started machine off; its disk is kept, and it can be started again.

        A guest that does not go off within a minute is ended, and so is one when the call is interrupted; what it had
        not written by then is lost.
        """
        self._check_told(machine_id)
        record = self._context.store.move(machine_id, "stopping", allowed=("started",))
        try:
            if record.running is not None:
                self._switch_off(record.running, record)
        except BaseException:
            with contextlib.suppress(PyroError):
                self.settle(record)
            raise
        return self.settle(record)

    def settle(self, record: MachineRecord) -> MachineRecord:
        """End the VMM, whatever the machine's state, and put it on record as stopped. Raises MachineFault."""
        self._destroy(record)
        stopped = record.moved("stopped", running=None)
        self._context.store.update(stopped)
        return stopped

    def delete(self, machine_id: str) -> None:
        """End a machine in whatever state it is, and remove all that is its own. Raises UnknownMachine."""
        store, paths = self._context.store, self._context.paths
        check_machine_id(machine_id)
        records, damaged = store.all()
        record = next((item for item in records if item.machine_id == machine_id), None)
        if record is None and machine_id not in damaged:
            raise UnknownMachine(f"there is no machine {machine_id}")
        if record is not None:
            self.discard(record)
            return
        remove_tree(paths.machine(machine_id).directory)
        store.remove(machine_id)

    def discard(self, record: MachineRecord) -> None:
        """``delete`` for who knows the record. A full disk cannot keep it: it goes before the record does."""
        with contextlib.suppress(UnknownMachine, HostFault):
            self._context.store.update(record.moved("deleting"))
        self._destroy(record)
        remove_tree(self._context.paths.machine(record.machine_id).directory)
        self._context.store.remove(record.machine_id)

    def status(self, machine_id: str) -> VmRecord:
        """The machine as its users see it. Raises UnknownMachine, or MachineExpired (it is deleted)."""
        return self.living(machine_id).public()

    def living(self, machine_id: str) -> MachineRecord:
        """The record of a machine whose time is not over; one whose VMM has died counts as stopped."""
        self._check_told(machine_id)
        record = self._context.store.get(machine_id)
        self._check_life(record)
        if record.state == "started" and record.execution_mode != "host_compat" and not record.vmm_alive:
            with contextlib.suppress(PyroError):  # what is left of its launcher
                self._destroy(record)
            record = record.moved("stopped", running=None)
            self._context.store.update(record)
        return record

    def reap_expired(self) -> list[str]:
        """Delete the machines whose time is over; their ids."""
        records, _ = self._context.store.all()
        return [record.machine_id for record in records if record.expired and self._try_delete(record.machine_id)]

    def channels(self, record: MachineRecord) -> "ChannelOpener":
        """The way to the agent of a started machine. Raises WrongState."""
        if record.running is None:
            raise WrongState(f"machine {record.machine_id} is {record.state}, not started")
        from pyro_mcp.engine.channels import Channels

        driver = choice.by_name(self._context.paths, record.driver)
        return Channels(driver.lines(self._context.paths.machine(record.machine_id), record.running))

    def _driver_for(self, spec: MachineSpec, progress: Progress) -> Driver | None:
        """The driver; ``None`` when there is none and the user allowed the host."""
        try:
            return self._choose(spec, progress)
        except (DriverUnavailable, ProgramMissing):
            if spec.allow_host_compat and spec.require_isolation == "any":
                _require_no_network(spec)
                return None
            raise

    def _choose(self, spec: MachineSpec, progress: Progress) -> Driver:
        context = self._context
        return choice.choose(
            context.paths, context.settings, spec.driver, isolation=spec.require_isolation, fetch=progress
        )

    def _install(self, environment: str, progress: Progress) -> Installed:
        return self._context.environments.ensure(
            environment, progress=progress, deadline=Deadline.after(INSTALL_SECONDS)
        )

    def _boot(self, record: MachineRecord, progress: Progress) -> MachineRecord:
        with stage("prepare"):
            kind = self._kind(record, progress)
        check_file_limit(disk_mib=record.disk_mib, mem_mib=record.mem_mib)
        private_directory(kind.launch.paths.directory)
        make_room(kind.launch)
        try:
            running = self._bring_up(kind, progress)
        except PyroError:
            keep_evidence(self._context.paths, record.machine_id)
            raise
        isolation = kind.driver.isolation(running)
        return record.moved("starting", running=running, isolation=isolation, image_digest=kind.environment_digest)

    def _kind(self, record: MachineRecord, progress: Progress) -> Kind:
        """What the machine of *record* is started from."""
        context = self._context
        runtime = build.ensure(context.paths, context.settings, progress, Deadline.after(INSTALL_SECONDS))
        installed = self._install(record.environment, progress)
        driver = choice.by_name(context.paths, record.driver)
        choice.check(driver, record.require_isolation)
        uplink = uplink_here(context.paths) if record.network else None
        files = context.paths.machine(record.machine_id)
        if files.scratch.exists():
            _require_image(record, installed)
        launch = Launch(
            machine_id=record.machine_id,
            vcpu_count=record.vcpu_count,
            mem_mib=record.mem_mib,
            kernel=runtime.kernel,
            initramfs=runtime.initramfs_vsock if record.execution_mode == "guest_vsock" else runtime.initramfs,
            rootfs=installed.rootfs,
            paths=files,
            agent=runtime.agent,
            # One that is to outlive us is ours until it is on record: nothing that nobody knows can be left over.
            owner=record.owner or ProcessId.current(),
            keep_directory=record.owner is None and record.keeps_disk,
            deadline_unix_ms=int(record.expires_at * 1000),
            debug_console=context.settings.debug_console,
            network=machine_network(record, files, uplink, context.settings) if uplink else None,
        )
        return Kind(record, launch, installed.digest, runtime.digest, driver, uplink)

    def _bring_up(self, kind: Kind, progress: Progress) -> RunningVmm:
        """Resume the machine from its template; boot it where there is none, or when it cannot go on from it."""
        context, record, scratch = self._context, kind.record, kind.launch.paths.scratch

        def on_record(running: RunningVmm) -> None:
            context.store.update(record.moved("starting", running=running))

        if not scratch.exists():  # a machine that has run has a disk of its own to boot with
            found = self.templates.obtain(kind, progress)
            running = found and self._go_on(kind, found, progress, on_record)
            if running:
                return running
            empty = empty_scratch(context.paths, record.disk_mib, Deadline.after(SCRATCH_SECONDS))
            copy_sparse(empty, scratch)
        return boot(kind.driver, kind.launch, seconds=context.settings.boot_timeout, started=on_record)

    def _go_on(
        self, kind: Kind, found: Found, progress: Progress, on_record: Callable[[RunningVmm], None]
    ) -> RunningVmm | None:
        """Resume the machine from the template *found*; ``None`` when that fails: nothing of it is left then."""
        scratch = kind.launch.paths.scratch
        try:
            with stage("prepare"):
                copy_sparse(found.snapshot.scratch, scratch)
            launch = kind.launch._replace(resume_from=found.snapshot)
            running = resume(kind.driver, launch, seconds=self._context.settings.boot_timeout, started=on_record)
        except PyroError as error:
            scratch.unlink(missing_ok=True)
            if isinstance(error, Interrupted | NetworkUnavailable):  # a boot would not find another network
                raise
            self.templates.reject(found, error, progress)
            return None
        self.templates.store.proved(found.key)
        return running

    def _switch_off(self, running: RunningVmm, record: MachineRecord) -> None:
        """Have the guest write what it has and go off, and wait until it has, if it does."""
        from pyro_mcp.guest.client import Agent

        with contextlib.suppress(PyroError):
            Agent(self.channels(record)).poweroff(Deadline.after(POWEROFF_SECONDS))
            running.vmm.ended(Deadline.after(WRITE_SECONDS))

    def _destroy(self, record: MachineRecord) -> None:
        if record.running is not None:
            choice.by_name(self._context.paths, record.driver).destroy(record.running, Deadline.after(DESTROY_SECONDS))

    def _check_told(self, machine_id: str) -> None:
        """Raise MachineExpired for one that was deleted for its age at the opening: there is no record of it."""
        if check_machine_id(machine_id) in self._context.expired:
            raise MachineExpired(f"machine {machine_id} expired and was automatically deleted")

    def _check_life(self, record: MachineRecord) -> None:
        if record.expired:
            self._try_delete(record.machine_id)
            raise MachineExpired(
                f"machine {record.machine_id} expired after {record.ttl_seconds} s and was automatically deleted"
            )

    def _try_delete(self, machine_id: str) -> bool:
        try:
            self.delete(machine_id)
        except UnknownMachine:
            return False
        return True


def _require_image(record: MachineRecord, installed: Installed) -> None:
    """A disk holds what differs from its image: on another one its files would be a mixture of both."""
    if record.image_digest not in (None, installed.digest):  # older records do not tell
        raise WrongState(
            f"the disk of machine {record.machine_id} belongs to another image than {record.environment} is now",
            remedy=f"Install that image again (its digest is {record.image_digest}) as {record.environment}, "
            f"or delete the machine: Pyro().delete_vm('{record.machine_id}').",
        )


def _require_no_network(spec: MachineSpec) -> None:
    """On the host itself a command has the host's own network, and no policy holds it."""
    if spec.network is not None:
        raise NetworkUnavailable(
            "no virtual machine can run here, and on the host itself no network policy would hold",
            remedy="Run it without --network, or make a driver work: `pyro doctor` says what is missing.",
        )


def _new_record(spec: MachineSpec, driver: Driver | None, version: str | None, *, with_caller: bool) -> MachineRecord:
    now = time.time()
    me = ProcessId.current()
    return MachineRecord(
        machine_id=new_machine_id(),
        state="created",
        environment=spec.environment,
        environment_version=version,
        vcpu_count=spec.vcpu_count,
        mem_mib=spec.mem_mib,
        disk_mib=spec.disk_mib,
        ttl_seconds=spec.ttl_seconds,
        created_at=now,
        expires_at=now + spec.ttl_seconds,
        allow_host_compat=spec.allow_host_compat,
        driver=driver.capabilities.name if driver else "none",
        execution_mode=driver.capabilities.execution_mode if driver else "host_compat",
        isolation=driver.isolation() if driver else NO_ISOLATION,
        require_isolation=spec.require_isolation,
        network=spec.network,
        owner=me if with_caller else None,
        actor=me,
    )
