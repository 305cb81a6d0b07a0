"""A lab that is kept: it goes on when its starter has ended, so that the next run need not boot one."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import read_json, write_json
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths, Paths
from pyro_mcp.testing.lab.machine import Parts, Running, boot_lab

KEPT_SECONDS = 4 * 3600.0


@contextlib.contextmanager
def kept(paths: Paths, parts: Parts) -> Iterator[tuple[Running, bool]]:
    """The lab that was kept, or a new one; and whether it is new. One that is made of other parts is ended first.

    It is ended when the block fails with an error of pyro's: what is broken is not worth keeping.
    """
    running = find(paths, parts)
    new = running is None
    if running is None:
        drop(paths)
        running = boot_lab(paths, parts, seconds=KEPT_SECONDS, owner=None)
        write_json(_record(paths), {"parts": _names(parts), **_processes(running)})
    try:
        yield running, new
    except PyroError:
        drop(paths)
        raise


def drop(paths: Paths) -> bool:
    """End the lab that was kept; whether there was one."""
    running = _read(paths)
    if running is not None:
        running.end()
    _record(paths).unlink(missing_ok=True)
    return running is not None


def find(paths: Paths, parts: Parts) -> Running | None:
    """The lab that was kept, if it lives and is made of *parts*."""
    running = _read(paths)
    record = read_json(_record(paths)) or {}
    same = record.get("parts") == _names(parts)
    return running if running is not None and running.vmm.vmm.alive and same else None


def _record(paths: Paths) -> Path:
    return paths.lab / "kept.json"


def _names(parts: Parts) -> list[str]:
    return [str(path) for path in (parts.kernel, parts.initramfs, parts.rootfs, parts.supplies)]


def _processes(running: Running) -> dict[str, object]:
    return {
        "directory": str(running.files.directory),
        "launcher": asdict(running.vmm.launcher),
        "vmm": asdict(running.vmm.vmm),
    }


def _read(paths: Paths) -> Running | None:
    record = read_json(_record(paths)) or {}
    try:
        vmm = RunningVmm(ProcessId(**record["launcher"]), ProcessId(**record["vmm"]))
        return Running(MachinePaths(Path(record["directory"])), vmm)
    except (KeyError, TypeError):  # no record, or none of ours
        return None
