"""What the lab boots: the runtime's kernel, and an initramfs that also loads KVM and what a host of machines needs."""

from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, write_atomically
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build, initramfs, kernel, modules
from pyro_mcp.runtime.agent import read_agent
from pyro_mcp.runtime.manifest import Runtime, digest_of
from pyro_mcp.runtime.recipe import WANTED
from pyro_mcp.testing.lab.stale import drop_older

# The lab has no modprobe at work: all its kernel can do is loaded at boot.
HOST_MODULES = (
    "kvm_amd",
    "tun",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_connlimit",
    "nft_ct",
    "nft_fib_inet",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_objref",
    "nft_reject_inet",
    "fuse",
    "loop",
)
FILE_MODE = 0o644  # QEMU, as another user, opens it again through /proc/self/fd


def ensure_initramfs(
    paths: Paths, settings: Settings, runtime: Runtime, progress: Progress, deadline: Deadline
) -> Path:
    """The lab's initramfs for the kernel and the agent of *runtime*. Raises RuntimeBroken, StorageFault or NoSpace."""
    digest = digest_of({"runtime": runtime.digest, "modules": list(HOST_MODULES)})
    path = private_directory(paths.lab) / f"initramfs-{digest}.cpio"
    if path.exists():
        return path
    package = kernel.chosen(paths)
    if package is None:
        build.ensure(paths, settings, progress, deadline, refresh=True)
        package = kernel.chosen(paths)
    if package is None or package.sha256 != runtime.manifest["kernel"]["sha256"]:
        raise RuntimeBroken("the kernel package of the runtime is not kept any more", remedy="Start the lab again.")
    with kernel.opened(package.path, paths.lab, deadline) as files:
        chosen = modules.select((*WANTED["serial"], *HOST_MODULES), files.module, files.builtin)
    write_atomically(path, initramfs.build(read_agent(runtime.agent)[1], chosen), mode=FILE_MODE)
    drop_older(paths.lab, "initramfs-*.cpio")
    return path
