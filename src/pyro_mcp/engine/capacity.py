"""Whether one more machine fits: free memory, free disk space, the size of its files."""

import resource
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.drivers.base import FILE_SLACK
from pyro_mcp.errors import CapacityReached, NoSpace
from pyro_mcp.host.files import RAISE_FILE_LIMIT, free_bytes
from pyro_mcp.paths import Paths

MIB = 1 << 20
# A guest's memory is the host's only once it is touched. An idle Debian guest touches about 100 MiB; this leaves it
# room to work.
WORKING_MIB = 384
RESERVE_MIB = 128
MEMINFO = Path("/proc/meminfo")


def check_capacity(paths: Paths, settings: Settings, *, mem_mib: int, meminfo: Path = MEMINFO) -> None:
    """Raise CapacityReached or NoSpace unless this host has room for a machine of *mem_mib*.

    How many there may be is for who puts it on record (``Store.insert``): two at once would both find room for one.
    """
    available = available_mib(meminfo)
    needed = min(mem_mib, WORKING_MIB) + RESERVE_MIB
    if available is not None and available < needed:
        raise CapacityReached(
            f"only {available} MiB of memory are free on this host; one more machine needs about {needed} MiB"
        )
    free = free_bytes(paths.state) // MIB
    if free < settings.min_free_mib:
        raise NoSpace(
            f"only {free} MiB are free for {paths.state}, {settings.min_free_mib} MiB have to be",
            remedy="Free some disk space, set XDG_STATE_HOME to a larger filesystem, or lower PYRO_MIN_FREE_MIB.",
        )


def check_file_limit(*, disk_mib: int, mem_mib: int) -> None:
    """Raise NoSpace unless this process may write files as large as a machine's: a VMM inherits the limit.

    It would be killed when it crosses the limit (setrlimit(2), RLIMIT_FSIZE).
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    needed = max(disk_mib, mem_mib) + FILE_SLACK // MIB
    if limit != resource.RLIM_INFINITY and limit < needed * MIB:
        raise NoSpace(
            f"a file of this process may have {limit // MIB} MiB, the machine needs {needed} MiB",
            remedy=RAISE_FILE_LIMIT,
        )


def available_mib(meminfo: Path = MEMINFO) -> int | None:
    """Memory that can be had without swapping, MiB (proc_meminfo(5), MemAvailable); ``None`` when unknown."""
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
