"""Removing what dead processes left. Every user of machines begins with it; it costs one query when all is well."""

import contextlib
import os
from typing import NamedTuple

from pyro_mcp.engine.machines import Context, Machines
from pyro_mcp.engine.template_store import TemplateStore
from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import remove_tree
from pyro_mcp.host.locks import try_lock
from pyro_mcp.model import MACHINE_ID


class Swept(NamedTuple):
    """The ids of machines that were removed: those whose time was over, and what was left behind."""

    expired: list[str]
    abandoned: list[str]


def sweep(context: Context) -> Swept:
    """Delete machines that are expired or abandoned, and directories without a record.

    A machine whose stop, or whose start from a disk it had, was cut short is switched off; its disk is kept.
    Only one process sweeps at a time; the others go on at once. A machine that cannot be removed is left for the
    next sweep.
    """
    lock = try_lock(context.paths.sweep_lock)
    if lock is None:
        return Swept([], [])
    try:
        swept = _records(context)
        swept.abandoned.extend(_directories(context))
        with contextlib.suppress(PyroError):  # no machine depends on it
            TemplateStore(context.paths).sweep()
        return swept
    finally:
        os.close(lock)


def _records(context: Context) -> Swept:
    machines = Machines(context)
    swept = Swept([], [])
    records, _ = context.store.all()
    for record in records:
        if record.expired or record.abandoned:
            with contextlib.suppress(PyroError):
                machines.delete(record.machine_id)
                (swept.expired if record.expired else swept.abandoned).append(record.machine_id)
        elif record.interrupted:
            with contextlib.suppress(PyroError):
                machines.settle(record)
    return swept


def _directories(context: Context) -> list[str]:
    """Directories without a record: the record is written first and removed last, so nobody needs them."""
    try:
        present = [entry.name for entry in os.scandir(context.paths.machines) if MACHINE_ID.fullmatch(entry.name)]
    except FileNotFoundError:
        return []
    if not present:
        return []
    records, damaged = context.store.all()
    known = {record.machine_id for record in records} | set(damaged)
    orphans = [name for name in present if name not in known]
    for name in orphans:
        with contextlib.suppress(PyroError):
            remove_tree(context.paths.machine(name).directory)
    return orphans
