"""The requests Firecracker gets, as data: pure, ordered, and compared with golden files.

Source: Firecracker's src/firecracker/swagger/firecracker.yaml at the tag of each version. A key the version does not
know is answered with a 400, so keys that came later are sent by ``VmmCapabilities`` only. All paths are relative to
the VMM's own root or working directory (``cell``), so that they are the same strings in every machine and every
kind of confinement: a snapshot names its files by these strings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyro_mcp.drivers.base import Launch
from pyro_mcp.drivers.firecracker.cell import INITRAMFS, KERNEL, MEMORY, ROOTFS, SCRATCH, STATE, VSOCK
from pyro_mcp.runtime.vmm_versions import VmmCapabilities

GUEST_CID = 3  # the same for every machine: the Unix socket tells them apart
ROOTFS_DRIVE = "rootfs"
SCRATCH_DRIVE = "scratch"
NIC = "eth0"
# As for QEMU: plenty for seeding generators, and a guest that only reads it costs the host nothing to speak of.
ENTROPY_BYTES, ENTROPY_MS = 64 << 10, 1000
TAP = "tap0"  # the same in every machine's namespace, and so in every snapshot


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the API. *body* is sent as JSON; ``None``: no body."""

    method: str
    path: str
    body: dict[str, Any] | None


def boot_requests(launch: Launch, capabilities: VmmCapabilities) -> tuple[Request, ...]:
    """Everything from a fresh process to a running guest, in order."""
    return tuple(_boot(launch, capabilities))


def _boot(launch: Launch, capabilities: VmmCapabilities) -> Iterator[Request]:
    config: dict[str, Any] = {"vcpu_count": launch.vcpu_count, "mem_size_mib": launch.mem_mib}
    if launch.keep_memory_in is not None:
        config["track_dirty_pages"] = True
    yield Request("PUT", "/machine-config", config)
    words = " ".join(kernel_words(debug=launch.debug_console))
    yield _put("/boot-source", kernel_image_path=KERNEL, initrd_path=INITRAMFS, boot_args=words)
    # The guest's names follow the order: the environment is /dev/vda, the scratch disk /dev/vdb.
    yield _drive(ROOTFS_DRIVE, ROOTFS, read_only=True)
    yield _drive(SCRATCH_DRIVE, SCRATCH, read_only=False)
    yield _put("/vsock", guest_cid=GUEST_CID, uds_path=VSOCK)
    if launch.network is not None:
        yield _put(f"/network-interfaces/{NIC}", iface_id=NIC, guest_mac=launch.network.colons, host_dev_name=TAP)
    if capabilities.entropy:
        yield _put("/entropy", rate_limiter={"bandwidth": {"size": ENTROPY_BYTES, "refill_time": ENTROPY_MS}})
    if capabilities.balloon:
        yield _balloon(capabilities)
    yield _action("InstanceStart")


def kernel_words(*, debug: bool) -> Iterator[str]:
    """The kernel's command line, word by word; it replaces Firecracker's default."""
    if debug:
        yield from ("console=ttyS0", "ignore_loglevel")
    else:
        # Each character on the serial port is an exit to the VMM: without the port boot and restore are shorter.
        yield from ("8250.nr_uarts=0", "quiet", "loglevel=1")
    # A reset through the keyboard controller ends the VMM; probing the rest of that controller takes time.
    yield from ("reboot=k", "panic=-1", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd")
    yield from ("audit=0", "cryptomgr.notests", "random.trust_cpu=on")
    yield from ("pyro.link=vsock", "pyro.off=restart")


def pause_requests() -> tuple[Request, ...]:
    """Stop the vCPUs. See ``VmmCapabilities.bare_pause`` before resuming without a snapshot."""
    return (_vm_state("Paused"),)


def resume_requests() -> tuple[Request, ...]:
    """Let the vCPUs go on."""
    return (_vm_state("Resumed"),)


def snapshot_requests(state: str, memory: str) -> tuple[Request, ...]:
    """Pause, and write device state and memory to files named as the VMM sees them.

    The difference to a machine that has not started: all that was ever written, and holes for the rest.
    """
    create = _put("/snapshot/create", snapshot_type="Diff", snapshot_path=state, mem_file_path=memory)
    return (_vm_state("Paused"), create)


def load_requests(capabilities: VmmCapabilities) -> tuple[Request, ...]:
    """Resume from a snapshot: the only request a fresh process gets. On failure the process exits."""
    body: dict[str, Any] = {
        "snapshot_path": STATE,
        "mem_backend": {"backend_type": "File", "backend_path": MEMORY},
        "resume_vm": True,
    }
    if capabilities.vsock_override:
        body["vsock_override"] = {"uds_path": VSOCK}
    return (Request("PUT", "/snapshot/load", body),)


def balloon_target(mib: int) -> Request:
    """Ask the guest to give up *mib* MiB; 0 gives all back."""
    return Request("PATCH", "/balloon", {"amount_mib": mib})


def flush_metrics() -> Request:
    """Write the metrics now; otherwise they come once a minute."""
    return _action("FlushMetrics")


def _balloon(capabilities: VmmCapabilities) -> Request:
    # Empty at first. The guest takes pages back before it runs out of memory, so an idle machine can be squeezed
    # without harm; with free page reporting the guest returns what it frees by itself.
    body: dict[str, Any] = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 0}
    if capabilities.free_page_reporting:
        body["free_page_reporting"] = True
    return Request("PUT", "/balloon", body)


def _drive(name: str, path: str, *, read_only: bool) -> Request:
    # Not a root device: the initramfs finds the disks. Unsafe: the scratch disk has nobody to be flushed for.
    # Sync: io_uring costs up to 110 ms per device when it is made.
    return _put(
        f"/drives/{name}",
        drive_id=name,
        path_on_host=path,
        is_root_device=False,
        is_read_only=read_only,
        cache_type="Unsafe",
        io_engine="Sync",
    )


def _vm_state(state: str) -> Request:
    return Request("PATCH", "/vm", {"state": state})


def _action(kind: str) -> Request:
    return _put("/actions", action_type=kind)


def _put(path: str, **body: object) -> Request:
    return Request("PUT", path, dict(body))
