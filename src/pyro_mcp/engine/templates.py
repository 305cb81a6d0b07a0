"""Templates: a machine is booted once, warmed up, paused; every later one of its kind goes on from there.

Nothing here may make a run fail that a boot would serve: whatever goes wrong is told as a note, and the machine boots.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pyro_mcp.config import Settings
from pyro_mcp.drivers.base import Driver, Launch, RunningVmm
from pyro_mcp.engine.boot import boot
from pyro_mcp.engine.capacity import check_capacity, check_file_limit
from pyro_mcp.engine.networking import for_template
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.template_store import GENERATION, Found, TemplateStore, snapshot_of
from pyro_mcp.errors import (
    Busy,
    CapacityReached,
    Interrupted,
    InvalidRequest,
    MachineFault,
    NetworkUnavailable,
    NoSpace,
    PyroError,
)
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import copy_sparse, free_bytes, private_directory
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Progress
from pyro_mcp.host.stopwatch import stage
from pyro_mcp.model import new_machine_id
from pyro_mcp.paths import Paths, TemplatePaths
from pyro_mcp.runtime.scratch import empty_scratch

if TYPE_CHECKING:  # a run without a network does not wait for it
    from pyro_mcp.network.uplink import Uplink

MIB = 1 << 20
KEY_DIGITS = 32
SCRATCH_SECONDS = 60.0
SNAPSHOT_SECONDS = 60.0
LIFE_SECONDS = 900.0
# What most commands touch: with a cold page cache the first `git --version` takes twice the time. The last one leaves
# nothing to be written by every machine again.
WARM_UP = (
    "true",
    "for p in git python3; do command -v $p >/dev/null && $p --version; done; ls -la / /etc; cat /etc/passwd; id",
    "for p in git python3; do command -v $p >/dev/null && $p --version; done; sync",
)


class Kind(NamedTuple):
    """A machine as templates see it: what it is started from. *launch* is that of the machine at hand.

    *uplink*: what its way out is made of; a template has none.
    """

    record: MachineRecord
    launch: Launch
    environment_digest: str
    runtime_digest: str
    driver: Driver
    uplink: "Uplink | None" = None

    def key(self, layout: str) -> str:
        """The name of this kind's template: whatever could make a resumed machine differ from a booted one is in it."""
        inputs = {
            "generation": GENERATION,
            "environment": self.environment_digest,
            "runtime": self.runtime_digest,
            "driver": self.driver.capabilities.name,
            "layout": layout,
            "vcpu_count": self.launch.vcpu_count,
            "mem_mib": self.launch.mem_mib,
            "disk_mib": self.record.disk_mib,
            "network": self.launch.network is not None,
            "warm_up": WARM_UP,
        }
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    def about(self) -> dict[str, Any]:
        """What a list of templates shows."""
        return {
            "environment": self.record.environment,
            "environment_version": self.record.environment_version,
            "driver": self.driver.capabilities.name,
            "vcpu_count": self.launch.vcpu_count,
            "mem_mib": self.launch.mem_mib,
            "disk_mib": self.record.disk_mib,
        }


class Templates:
    """Finds and makes templates. *discard* deletes a machine by its id, whatever its state."""

    def __init__(self, paths: Paths, settings: Settings, store: Store, discard: Callable[[str], None]) -> None:
        self._paths = paths
        self._settings = settings
        self._records = store
        self._discard = discard
        self.store = TemplateStore(paths)

    def obtain(self, kind: Kind, progress: Progress) -> Found | None:
        """The template of *kind*, made if it is not there; ``None`` when the machine has to boot."""
        if not self._wanted(kind):
            return None
        try:
            with stage("prepare"):
                layout = kind.driver.layout(kind.launch)
                key = kind.key(layout)
                found = self.store.find(key, layout)
            if found is not None:
                return found
            if reason := self.store.barred(key):
                progress.note(f"No template is made for now ({reason}); the machine boots.")
                return None
            return self.make(kind, key, layout, progress)
        except (Interrupted, NetworkUnavailable):  # of this host, not of the template
            raise
        except PyroError as error:
            progress.note(f"No template could be made ({error.cause}); the machine boots.")
            return None

    def build(self, kind: Kind, progress: Progress) -> Found:
        """The template of *kind*, made if it is not there. Raises what goes wrong, and Busy when another makes it."""
        if not self._wanted(kind):
            raise InvalidRequest(
                "templates are switched off, or the driver has none",
                remedy="Unset PYRO_NO_TEMPLATES and PYRO_DEBUG_CONSOLE, and use --driver auto.",
            )
        layout = kind.driver.layout(kind.launch)
        key = kind.key(layout)
        found = self.store.find(key, layout) or self.make(kind, key, layout, progress)
        if found is None:
            raise Busy("another process is making this template")
        return found

    def make(self, kind: Kind, key: str, layout: str, progress: Progress) -> Found | None:
        """Make the template; ``None`` when another process is at it. Raises what goes wrong."""
        with self.store.making(key) as work:
            if work is None:
                return None
            found = self.store.find(key, layout)  # another may have made it a moment ago
            if found is not None:
                return found
            self._check_room(kind)
            progress.phase("template", environment=kind.record.environment)
            try:
                self._build(kind, work, layout)
                made = self.store.publish(key, work, layout, kind.about())
            except (Interrupted, NetworkUnavailable, CapacityReached):  # of this host, and of now
                raise
            except PyroError as error:
                self.store.failed(key, "make", error.cause)
                raise
        self.store.bound(self._settings.templates_max_mib, keep=key)
        return made

    def reject(self, found: Found, error: PyroError, progress: Progress) -> None:
        """A machine could not go on from *found*: remove it if that may be its fault, and say so."""
        progress.note(f"The template could not be used ({error.cause}); the machine boots.")
        if isinstance(error, MachineFault):
            self.store.failed(found.key, "resume", f"machines could not go on from it: {error.cause}")
            with contextlib.suppress(PyroError):
                self.store.drop(found.key)

    def _wanted(self, kind: Kind) -> bool:
        enabled = not self._settings.no_templates and not self._settings.debug_console
        return enabled and kind.driver.capabilities.snapshots and not kind.launch.extra_disks

    def _check_room(self, kind: Kind) -> None:
        check_file_limit(disk_mib=kind.record.disk_mib, mem_mib=kind.launch.mem_mib)
        check_capacity(self._paths, self._settings, mem_mib=kind.launch.mem_mib)
        # The guest may touch all of its memory while it boots.
        needed = kind.launch.mem_mib + self._settings.min_free_mib
        free = free_bytes(self._paths.templates) // MIB
        if free < needed:
            raise NoSpace(f"only {free} MiB are free for {self._paths.templates}, a template may need {needed} MiB")

    def _build(self, kind: Kind, work: TemplatePaths, layout: str) -> None:
        """Boot a machine that is on record like any other, so that whatever ends us ends it, and snapshot it."""
        now = time.time()
        record = replace(
            kind.record,
            machine_id=new_machine_id(),
            created_at=now,
            expires_at=now + LIFE_SECONDS,
            owner=ProcessId.current(),
            running=None,
        ).moved("starting")
        files = self._paths.machine(record.machine_id)
        launch = kind.launch._replace(
            machine_id=record.machine_id,
            paths=files,
            owner=record.owner,
            keep_directory=False,
            deadline_unix_ms=int(record.expires_at * 1000),
            keep_memory_in=work.memory,
        )
        launch = for_template(launch, kind.uplink)
        # Only who makes a template speaks with its guest.
        from pyro_mcp.engine.channels import Channels
        from pyro_mcp.engine.warm_up import prepare

        self._records.insert(record, most=self._settings.max_active_vms, instead_of=kind.record.machine_id)
        try:
            private_directory(files.directory)
            empty = empty_scratch(self._paths, record.disk_mib, Deadline.after(SCRATCH_SECONDS))
            copy_sparse(empty, files.scratch)

            def on_record(running: RunningVmm) -> None:
                self._records.update(record.moved("starting", running=running))

            running = boot(kind.driver, launch, seconds=self._settings.boot_timeout, started=on_record)
            prepare(Channels(kind.driver.lines(files, running)), launch, WARM_UP)
            kind.driver.snapshot(launch, running, snapshot_of(work, layout), Deadline.after(SNAPSHOT_SECONDS))
        finally:
            self._discard(record.machine_id)
