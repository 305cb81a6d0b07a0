"""The lab's root filesystem: one more environment, made by our own bootstrap and kept in a cache of its own."""

import hashlib
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.bootstrap import DebianBootstrap
from pyro_mcp.environments.cache import Cache
from pyro_mcp.environments.catalog import CatalogEntry, OciName
from pyro_mcp.environments.source import make_from_first
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths

PACKAGES = (
    "bash",
    "ca-certificates",
    "coreutils",
    "e2fsprogs",
    "git",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "passt",
    "procps",
    "python3",
    "squashfs-tools",
    "strace",
    "uidmap",
)
PYTHON = "3.11"  # what Debian 12 has: the packages brought along are for it

ENTRY = CatalogEntry(
    name="pyro-lab",
    description="The machine in which tests/lab runs.",
    packages=PACKAGES,
    include=PACKAGES,
    root_mib=900,
    image_mib=300,
    oci=OciName("", "", ""),  # nobody publishes it
    version=hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:16],
)


def ensure_rootfs(paths: Paths, settings: Settings, progress: Progress, deadline: Deadline) -> Path:
    """The lab's squashfs image, made by the first caller (a minute) and kept. Raises what an installation raises."""
    cache = Cache(paths._replace(environments=private_directory(paths.lab) / "environments"))
    found = cache.find(ENTRY)
    if found is None:
        progress.phase("lab-rootfs", environment=ENTRY.name)
        with cache.installing(ENTRY, deadline, lambda: progress.note("another process makes the lab")):
            found = cache.recheck(ENTRY)
            if found is None:
                with cache.partial(ENTRY) as work:
                    made = make_from_first((DebianBootstrap(settings),), ENTRY, work, progress, deadline)
                    found = cache.publish(ENTRY, made, work, deadline)
    return cache.image(found)
