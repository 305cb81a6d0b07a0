"""What depends on the version of QEMU that is installed."""

import re
from pathlib import Path

from pyro_mcp.errors import HostFault
from pyro_mcp.host import facts, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths

FACT = "qemu_version"
VERSION_SECONDS = 10.0
# "accel/tcg: Always lock pages before translation", deba78709ae8. Before it a processor that translates code while
# another one patches it may keep the translation of the old bytes. Linux patches itself by way of a breakpoint; who
# keeps that traps for ever. Seen within a minute in a guest of 7.2 that switches statistics of its scheduler.
SAFE_IN_PARALLEL = (8, 1)


def emulates_in_parallel(paths: Paths, program: Path) -> bool:
    """Whether *program* may emulate several processors at the same time. Asked once per boot; never raises."""
    version = _version(paths, program)
    return version is not None and version >= SAFE_IN_PARALLEL


def parse(output: bytes) -> tuple[int, int] | None:
    """The version in what ``--version`` prints."""
    found = re.match(rb"QEMU emulator version ([0-9]{1,4})\.([0-9]{1,4})", output)
    return (int(found[1]), int(found[2])) if found else None


def _version(paths: Paths, program: Path) -> tuple[int, int] | None:
    try:
        status = program.stat()
        identity = [str(program), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
        known = facts.recall(paths, FACT) or {}
        if known.get("program") == identity:
            major, minor = known["version"]
            return int(major), int(minor)
        version = parse(proc.run([str(program), "--version"], Deadline.after(VERSION_SECONDS)).stdout)
    except (HostFault, OSError, KeyError, TypeError, ValueError):
        return None
    if version is not None:
        facts.remember(paths, FACT, {"program": identity, "version": list(version)})
    return version
