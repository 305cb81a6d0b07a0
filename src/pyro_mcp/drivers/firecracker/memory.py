"""Giving an idle machine's memory back to the host, through the balloon.

With free page reporting (Firecracker 1.14 and later) the guest returns what it frees by itself. Without, the balloon
is blown up to what the guest has free, which returns those pages, and let go again: the guest may use them as before,
and they cost the host nothing until it does. The guest takes pages back before it runs out (``deflate_on_oom``).
"""

from pathlib import Path

from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.requests import balloon_target
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.wait import attempts

PAGE_KIB = 4
PAUSE = 0.05
STEADY_LOOKS = 4  # looks in a row at which nothing came back: the guest has given what it could
STEADY_MIB = 2


def squeeze(api: Api, vmm: ProcessId, mib: int, deadline: Deadline) -> int:
    """Have the guest return up to *mib* MiB that it does not use; how many came back. Raises MachineFault."""
    before = last = resident_mib(vmm)
    api.send(balloon_target(mib), deadline)
    try:
        steady = 0
        for _ in attempts(deadline, longest=PAUSE):
            now = resident_mib(vmm)
            steady = steady + 1 if now > last - STEADY_MIB and now < before - STEADY_MIB else 0
            last = now
            if steady == STEADY_LOOKS or before - now >= mib:
                break
    finally:
        api.send(balloon_target(0), Deadline.after(5.0))
    return max(0, before - last)


def resident_mib(process: ProcessId) -> int:
    """Memory of the process that is in RAM (proc(5) statm); 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE_KIB >> 10
    except (OSError, ValueError, IndexError):
        return 0
