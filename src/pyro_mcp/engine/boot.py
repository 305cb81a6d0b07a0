"""From a launch to a guest that answers and has an identity of its own; with evidence when it does not come to that."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyro_mcp.drivers.base import Driver, Launch, RunningVmm
from pyro_mcp.drivers.failed_start import ended_on_failure
from pyro_mcp.engine.evidence import gather
from pyro_mcp.engine.networking import nic_of
from pyro_mcp.errors import BootFailed, LinkTimeout, MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.stopwatch import stage

if TYPE_CHECKING:  # what speaks with the guest is loaded while the VMM starts
    from pyro_mcp.guest.client import Agent
    from pyro_mcp.guest.identity import Identity

# A boot that hangs is seldom and worth one retry; what fails twice has a cause that the evidence shows.
ATTEMPTS = 2
ENDING_SECONDS = 0.2
CONFIGURE_SECONDS = 4.0


def boot(driver: Driver, launch: Launch, *, seconds: float, started: Callable[[RunningVmm], None]) -> RunningVmm:
    """Start the VMM and wait, at most *seconds* per attempt, until the agent has answered and was configured.

    *started* is called as soon as the processes exist, before anything else can fail, so that the record names them.
    Raises BootFailed with evidence; nothing runs any more then, or the details tell what does.
    """
    seen: list[RunningVmm] = []

    def on_record(running: RunningVmm) -> None:
        seen.append(running)
        started(running)

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _boot_once(driver, launch, Deadline.after(seconds), on_record)
        except MachineFault as error:
            # The last attempt talks on the console: evidence, should it fail, too.
            launch = launch._replace(debug_console=launch.debug_console or attempt == ATTEMPTS - 1)
            if attempt == ATTEMPTS or any(one.vmm.alive for one in seen):  # no second VMM on one disk
                details = [*error.details, *gather(launch.paths)]
                raise BootFailed(f"the guest did not come up: {error.cause}", details=details) from error
    raise AssertionError("the loop returns or raises")


def resume(driver: Driver, launch: Launch, *, seconds: float, started: Callable[[RunningVmm], None]) -> RunningVmm:
    """As ``boot``, for a launch that goes on from a snapshot: one attempt, and MachineFault when it fails."""
    return _boot_once(driver, launch, Deadline.after(seconds), started)


def _boot_once(driver: Driver, launch: Launch, deadline: Deadline, started: Callable[[RunningVmm], None]) -> RunningVmm:
    with contextlib.ExitStack() as on_failure:
        with stage("boot" if launch.resume_from is None else "resume"):
            vmm = driver.start(launch, deadline)
        on_failure.push(ended_on_failure(driver.destroy, vmm.running))
        with contextlib.closing(vmm):
            started(vmm.running)
            with stage("load"):
                from pyro_mcp.engine.channels import Channels
                from pyro_mcp.guest.client import Agent
                from pyro_mcp.guest.identity import Identity
            try:
                # The first client of a guest has nobody's leftovers to clear away: it says HELLO once and waits.
                agent = Agent(Channels(driver.lines(launch.paths, vmm.running), quiet=deadline.remaining))
                resumed = launch.resume_from is not None
                with stage("handshake"):
                    identity = Identity.fresh(launch.machine_id, resumed=resumed, nic=nic_of(launch))
                    _configure(agent, identity, deadline)
            except MachineFault as error:
                how = vmm.ending(Deadline.after(ENDING_SECONDS))
                raise MachineFault(f"{error.cause}{f'; {how}' if how else ''}", details=error.details) from error
        on_failure.pop_all()
    return vmm.running


def _configure(agent: "Agent", identity: "Identity", deadline: Deadline) -> None:
    """Give the guest its identity. Said again, on a new connection, when no answer comes.

    A connection that is made while a resumed guest resets its vsock may be lost without a word to us (Firecracker,
    docs/snapshotting/snapshot-support.md); the second time changes nothing.
    """
    patience = CONFIGURE_SECONDS
    while True:
        try:
            agent.configure(identity, deadline.sooner(patience))
        except LinkTimeout:
            if deadline.passed:
                raise
            patience *= 2
        else:
            return
