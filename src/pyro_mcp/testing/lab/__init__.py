"""The lab: a QEMU machine with an emulated AMD-V, in which real KVM, real Firecracker and its jailer run.

Most test hosts have no usable KVM. In the lab ``tests/lab`` of this checkout runs all the same, as root and as a normal
user. It is built from pyro's own parts:

1. ``rootfs``, ``guest_kernel``, ``site`` and ``supplies`` make its parts, cached by content: a Debian with Python, an
   initramfs that loads KVM, and a read-only disk with Python packages and pyro's cache.
2. ``machine`` boots it with the QEMU driver and runs commands in it through the agent; ``kept`` is one that stays.
3. ``session`` brings the checkout in, runs pytest for each user, and collects logs and results. ``inside`` is its part
   in the lab.

``scripts/lab.py`` is the command; ``make lab`` runs it.
"""

from pathlib import Path

SUPPLIES = Path("/lab")  # where the supplies are mounted in the lab
CHECKOUT = Path("/work")
RESULTS = Path("/results")


def in_lab() -> bool:
    """Whether this process runs in the lab."""
    return (SUPPLIES / "mtimes.json").exists()
