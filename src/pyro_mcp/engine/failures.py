"""The logs of the last failed starts, kept when their machines are gone: the cause is too often in a deleted log."""

import contextlib
import shutil

from pyro_mcp.host.files import private_directory, remove_tree
from pyro_mcp.paths import Paths

KEPT = 5


def keep_evidence(paths: Paths, machine_id: str) -> None:
    """Copy the logs of *machine_id* aside, and drop the oldest beyond five. Never raises: an error is on its way."""
    files = paths.machine(machine_id)
    parts = [part for log in (files.console, files.vmm_log) for part in (log, log.with_name(f"{log.name}.1"))]
    with contextlib.suppress(OSError, RuntimeError):
        written = [part for part in parts if part.exists() and part.stat().st_size]
        if not written:
            return
        target = private_directory(paths.failures / machine_id)
        for part in written:
            shutil.copyfile(part, target / part.name)
        kept = sorted(paths.failures.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kept[KEPT:]:
            remove_tree(old)
