"""Who a VMM runs as when pyro runs as root: a user id of its own per machine, with no name, no files and no groups."""

import os
from pathlib import Path

from pyro_mcp.drivers.launcher import Identity

# Far above what systems and containers hand out (subuid ranges usually end below 2^30), and below 2^31.
FIRST_UID = 1_879_048_192
UID_COUNT = 1 << 24
NOBODY = 65534
KVM_DEVICE = Path("/dev/kvm")


def vmm_identity(machine_id: str) -> Identity | None:
    """The identity for *machine_id*; ``None`` when pyro is not root and the VMM runs as the caller."""
    if os.geteuid() != 0:
        return None
    uid = FIRST_UID + int(machine_id, 16) % UID_COUNT
    if not _mapped(uid):
        uid = NOBODY  # in a user namespace with few ids; still not root
    return Identity(uid, uid, groups=_kvm_groups())


def gate_identity(machine_id: str) -> Identity | None:
    """Who the gate of *machine_id* is: not the VMM's user, whose machine it watches over; ``None`` as above."""
    vmm = vmm_identity(machine_id)
    if vmm is None:
        return None
    return Identity(vmm.uid + UID_COUNT, vmm.gid + UID_COUNT) if vmm.uid != NOBODY else Identity(NOBODY, NOBODY)


def may_open_kvm() -> bool:
    """Whether a VMM under its own identity may open /dev/kvm by its path; pyro itself may, if it is not root."""
    if os.geteuid() != 0 or _kvm_groups():
        return True
    try:
        return KVM_DEVICE.stat().st_mode & 0o006 == 0o006
    except OSError:
        return False


def _mapped(uid: int) -> bool:
    """Whether *uid* exists in this user namespace (user_namespaces(7), uid_map)."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, length = (int(word) for word in line.split())
        if inside <= uid < inside + length:
            return True
    return False


def _kvm_groups() -> tuple[int, ...]:
    """The group that may open /dev/kvm, unless that is root's."""
    try:
        status = KVM_DEVICE.stat()
    except OSError:
        return ()
    may = status.st_mode & 0o060 == 0o060
    return (status.st_gid,) if may and status.st_gid != 0 else ()
