"""Which processor this host has: a guest that was started on one does not go on with another."""

import hashlib
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What decides whether a guest sees the same processor; the rest of a block counts and measures.
TELLING = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags", "bugs")
BLOCK_MOST = 1 << 16


def cpu_identity(cpuinfo: Path = CPUINFO) -> str:
    """A digest of the first processor's model and flags (proc(5), cpuinfo); the same for all of a host's."""
    with cpuinfo.open("rb", buffering=0) as stream:
        block = bytearray()
        # The file is made as it is read: on a host with many processors the first block is enough, and quick.
        while len(block) < BLOCK_MOST and b"\n\n" not in block:
            data = stream.read(4096)
            if not data:
                break
            block += data
    lines = bytes(block).partition(b"\n\n")[0].decode(errors="replace").splitlines()
    values = [line for line in lines if line.partition(":")[0].strip() in TELLING]
    return hashlib.sha256("\n".join(values).encode()).hexdigest()
