"""Giving an idle machine's memory back to the host, through the balloon.

With free page reporting (Firecracker 1.14 and later) the guest returns what it frees by itself. Without, the balloon
is blown up to what the guest has free, which returns those pages, and let go again: the guest may use them as before,
and they cost the host nothing until it does. The guest takes pages back before it runs out (``deflate_on_oom``).
"""

from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.requests import balloon_target
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId, resident_mib
from pyro_mcp.host.wait import attempts

PAUSE = 0.05
QUIET_SECONDS = 2.0  # without progress: the guest has given what it could
PROGRESS_MIB = 2


def squeeze(api: Api, vmm: ProcessId, mib: int, deadline: Deadline) -> int:
    """Have the guest return up to *mib* MiB that it does not use; how many came back. Raises MachineFault."""
    before = least = resident_mib(vmm)
    api.send(balloon_target(mib), deadline)
    try:
        quiet = deadline.sooner(QUIET_SECONDS)
        for _ in attempts(deadline, longest=PAUSE):
            now = resident_mib(vmm)
            if now <= least - PROGRESS_MIB:
                least, quiet = now, deadline.sooner(QUIET_SECONDS)
            if quiet.passed or before - now >= mib:
                break
    finally:
        api.send(balloon_target(0), Deadline.after(5.0))
    return before - least
