"""What a runtime is made by: who looks whether the one at hand is still right needs to know no more than this."""

from collections.abc import Mapping
from typing import Any, Literal

Link = Literal["serial", "vsock"]
DISKS = ("virtio_mmio", "virtio_blk", "squashfs", "overlay", "ext4")
# Loading a module costs milliseconds under CPU emulation: each link gets what its VMM has devices for, and no
# more.
WANTED: Mapping[Link, tuple[str, ...]] = {
    "serial": (*DISKS, "virtio_console", "virtio_net", "virtio_rng", "virtio_balloon"),
    "vsock": (*DISKS, "vmw_vsock_virtio_transport", "virtio_net", "virtio_rng", "virtio_balloon"),
}
# What parts are made from a kernel and an agent. The generation goes up when the builder makes other parts of them.
RECIPE: dict[str, Any] = {"generation": 1, "modules": {link: list(names) for link, names in WANTED.items()}}
