"""The record of one machine: written before its resources exist, removed after they are gone."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.engine import stored
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import (
    ISOLATION_LEVELS,
    ExecutionMode,
    Isolation,
    IsolationLevel,
    MachineState,
    NetworkPolicy,
    VmRecord,
    check_machine_id,
)
from pyro_mcp.network.addresses import GUEST, TAP

State = Literal["created", "starting", "started", "executing", "stopping", "stopped", "deleting"]
STATES: tuple[str, ...] = get_args(State)
# What users see of each state: they know three.
PUBLIC_STATE: dict[State, MachineState] = {
    "created": "created",
    "starting": "created",
    "started": "started",
    "executing": "started",
    "stopping": "started",
    "stopped": "stopped",
    "deleting": "stopped",
}
NO_ISOLATION: Isolation = {"vmm": "none", "accelerator": "none", "sandbox": []}


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """One row. Times are Unix seconds, sizes MiB.

    *owner*: the process the machine dies with (``None``: it lives until its time is over). *actor*: the process that is
    changing its state; when the actor is dead, so is the change. *keeps_disk*: it had a disk before it was started,
    which the end of a start may not take. *image_digest*: the image it was started with, which its disk belongs to.
    """

    machine_id: str
    state: State
    environment: str
    environment_version: str | None
    vcpu_count: int
    mem_mib: int
    disk_mib: int
    ttl_seconds: int
    created_at: float
    expires_at: float
    allow_host_compat: bool
    driver: str
    execution_mode: ExecutionMode
    isolation: Isolation
    owner: ProcessId | None
    actor: ProcessId
    running: RunningVmm | None = None
    require_isolation: IsolationLevel = "any"
    network: NetworkPolicy | None = None
    keeps_disk: bool = False
    image_digest: str | None = None

    @property
    def expired(self) -> bool:
        """Whether its time to live is over."""
        return time.time() >= self.expires_at

    @property
    def abandoned(self) -> bool:
        """Whether nobody will ever use or remove it: its owner is dead, or what was making or ending it."""
        if self.owner is not None and not self.owner.alive:
            return True
        first_start = self.state == "starting" and not self.keeps_disk
        return (first_start or self.state in ("executing", "deleting")) and not self.actor.alive

    @property
    def interrupted(self) -> bool:
        """Whether the process that was stopping it, or starting it again, is dead: its disk is still wanted."""
        restart = self.state == "starting" and self.keeps_disk
        return (restart or self.state == "stopping") and not self.actor.alive and not self.abandoned

    @property
    def vmm_alive(self) -> bool:
        """Whether its VMM runs."""
        return self.running is not None and self.running.vmm.alive

    def moved(self, state: State, **changes: Any) -> "MachineRecord":  # noqa: ANN401 - any field
        """The record in another state, changed by this process."""
        return replace(self, state=state, actor=ProcessId.current(), **changes)

    def public(self) -> VmRecord:
        """What the SDK, the CLI and the MCP server show."""
        return {
            "vm_id": self.machine_id,
            "environment": self.environment,
            "environment_version": self.environment_version,
            "vcpu_count": self.vcpu_count,
            "mem_mib": self.mem_mib,
            "disk_mib": self.disk_mib,
            "ttl_seconds": self.ttl_seconds,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "state": PUBLIC_STATE[self.state],
            "network_enabled": self.network is not None,
            "allow_host_compat": self.allow_host_compat,
            "guest_ip": GUEST if self.network else None,
            "tap_name": TAP if self.network else None,
            "execution_mode": self.execution_mode,
            "isolation": self.isolation,
            "metadata": {},
        }

    def as_json(self) -> dict[str, Any]:
        """The form that is stored."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MachineRecord":
        """Read a stored record; raises ValueError, KeyError or TypeError for one that is damaged."""
        return cls(**stored.checked(dict(value), CHECKS))


def _running(value: dict[str, Any]) -> RunningVmm:
    return RunningVmm(stored.process(value["launcher"]), stored.process(value["vmm"]))


CHECKS: dict[str, stored.Check] = {
    "machine_id": check_machine_id,
    "state": stored.one_of(*STATES),
    **stored.ASKED_FOR,
    "driver": stored.text,
    "execution_mode": stored.one_of(*get_args(ExecutionMode)),
    "isolation": stored.isolation,
    "owner": stored.maybe(stored.process),
    "actor": stored.process,
    "running": stored.maybe(_running),
    "require_isolation": stored.one_of(*ISOLATION_LEVELS),
    "network": stored.maybe(NetworkPolicy.from_json),
    "keeps_disk": stored.flag,
    "image_digest": stored.maybe(stored.text),
}
