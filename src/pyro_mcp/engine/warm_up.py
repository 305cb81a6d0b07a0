"""Warming a guest up, so that what is resumed from it finds in its memory what it needs, and nothing put off."""

from collections.abc import Sequence

from pyro_mcp.drivers.base import Launch
from pyro_mcp.engine.networking import nic_of
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.client import Agent, ChannelOpener
from pyro_mcp.guest.execution import execute
from pyro_mcp.guest.identity import Identity
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.model import CommandSpec

WARM_UP_SECONDS = 60.0
# What the guest's kernel puts off after a command (RCU, freed cgroups) is done once here, and not again by each machine
# in its first moments.
SETTLE_SECONDS = 1.0


def prepare(channels: ChannelOpener, launch: Launch, commands: Sequence[str]) -> None:
    """Bring the guest to where its clones begin: warm, no session open, no job known, nothing put off."""
    warm_up(channels, commands)
    # As a resumed machine will be configured: what that touches is warm then, too.
    identity = Identity.fresh(launch.machine_id, resumed=True, nic=nic_of(launch))
    Agent(channels).configure(identity, Deadline.after(WARM_UP_SECONDS))
    until(lambda: False, Deadline.after(SETTLE_SECONDS))


def warm_up(channels: ChannelOpener, commands: Sequence[str]) -> None:
    """Run usual *commands*, so that their files are in the guest's memory, and forget their jobs."""
    deadline = Deadline.after(WARM_UP_SECONDS)
    agent = Agent(channels)
    for command in commands:
        job = new_job()
        with channels.open(deadline) as session:
            execute(session, CommandSpec(command, WARM_UP_SECONDS), job, sinks=CaptureSinks(), deadline=deadline)
        agent.forget(job, deadline)
