"""Whether KVM can run a guest here: not whether the device exists, but whether a guest's instructions ran.

There are hosts where ``/dev/kvm`` opens and makes machines that never run. So the processor must show its
virtualization extension, and a guest of one page (``kvm_guest``) must have done its work.
"""

import os
import signal
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from pyro_mcp.errors import HostFault
from pyro_mcp.host import facts, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths

DEVICE = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
GUEST_PROGRAM = Path(__file__).with_name("kvm_guest.py")
FACT = "kvm"
# What the guest may take. It takes milliseconds; a host that is very busy gets a second chance before it is said, and
# remembered until the next boot, that guests do not run there.
GUEST_SECONDS = (2.0, 8.0)
PROBE_SECONDS = 15.0  # starting an interpreter may take a while where the host itself is emulated
EXTENSIONS = {"vmx", "svm"}
ALLOW = "Add yourself to the group of the device, often kvm: `sudo usermod -aG kvm $USER`, then log in again."
LOAD = "Load the module: `sudo modprobe kvm_intel` or `kvm_amd`; a container needs `--device /dev/kvm`."
EMULATED = "Nothing need be done: machines run under QEMU's software emulation, which is slower."


class KvmReport(NamedTuple):
    """The verdict. *reason* says why it is not usable (empty when it is), *remedy* what to do about that."""

    exists: bool
    readable: bool
    writable: bool
    usable: bool
    reason: str
    remedy: str


def probe(paths: Paths, deadline: Deadline, *, device: Path = DEVICE, cpuinfo: Path = CPUINFO) -> KvmReport:
    """Look at the device and run a one-page guest on it, once per boot of the host. Never raises."""
    incapable = processor_reason(cpuinfo)
    try:
        status = device.stat()
    except OSError as error:
        reason = f"{device} cannot be used: {error.strerror}"
        return KvmReport(False, False, False, False, incapable or reason, EMULATED if incapable else LOAD)
    readable, writable = (os.access(device, mode, effective_ids=True) for mode in (os.R_OK, os.W_OK))
    if incapable or not (readable and writable):
        reason = incapable or f"you may not open {device}"
        return KvmReport(True, readable, writable, False, reason, EMULATED if incapable else ALLOW)
    reason = _guest_reason(paths, device, status, deadline)
    return KvmReport(True, True, True, not reason, reason, EMULATED if reason else "")


def processor_reason(cpuinfo: Path) -> str:
    """Why this processor cannot run guests, by its flags (proc(5) cpuinfo); empty when it can."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError as error:
        return f"{cpuinfo} cannot be read: {error.strerror}"
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() == "flags" and EXTENSIONS & set(flags.split()):
            return ""
    return "the processor shows neither vmx nor svm, so this host has no hardware virtualization to offer"


def _guest_reason(paths: Paths, device: Path, status: os.stat_result, deadline: Deadline) -> str:
    """Why the guest did not run, from memory if this very device was tried in this boot; empty when it ran."""
    identity = [
        str(device),
        *(status.st_dev, status.st_ino, status.st_rdev, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid),
        os.geteuid(),
    ]
    known = facts.recall(paths, FACT) or {}
    reason = known.get("reason")
    if known.get("device") == identity and isinstance(reason, str):
        return reason
    reason = ""
    for seconds in GUEST_SECONDS:
        # -I -S: the guest program needs only the standard library, and nobody's settings for Python.
        argv = [sys.executable, "-I", "-S", str(GUEST_PROGRAM), str(device), str(seconds)]
        try:
            done = proc.run(argv, deadline.sooner(PROBE_SECONDS), check=False)
        except HostFault as error:  # says nothing about KVM, so it is not remembered
            return f"KVM could not be tried: {error.cause}"
        reason = verdict(done.status, done.stderr)
        if done.status != -signal.SIGALRM:
            break
    facts.remember(paths, FACT, {"device": identity, "reason": reason})
    return reason


def verdict(status: int, stderr: bytes) -> str:
    """Why the guest did not run, from the exit status and stderr of its program; empty when it ran."""
    if status == 0:
        return ""
    if status == -signal.SIGALRM:
        return "KVM makes machines, but a guest in one does not run"
    lines = proc.tail(stderr, 1)
    return lines[0] if lines and status == 1 else f"the program that tries KVM ended with status {status}"
