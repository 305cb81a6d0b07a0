"""Machines kept ready in a process that lives long: started before they are asked for, and warm.

A pool holds machines of one kind, the one asked for last. It is filled in the background, after a run and not beside
it; it is emptied when nobody has asked for a while, when memory gets short, and when its owner closes it. Its machines
are on record like any other and die with this process.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pyro_mcp.engine.capacity import RESERVE_MIB, WORKING_MIB, available_mib
from pyro_mcp.engine.machines import Machines
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.templates import WARM_UP
from pyro_mcp.engine.warm_up import warm_up
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.model import TTL_SECONDS_LIMITS, MachineSpec

IDLE_SECONDS = 300.0  # nobody has asked for that long: the memory is given back
AGAIN_SECONDS = 10.0  # after a machine could not be made
SHELF_SECONDS = 900  # how long a machine may wait beyond the time to live it was asked for


class Pool:
    """At most *size* machines ready. Thread-safe."""

    def __init__(self, machines: Callable[[], Machines], size: int) -> None:
        self._machines = machines
        self._size = size
        self._changed = threading.Condition()
        self._wanted: MachineSpec | None = None
        self._asked = Deadline.never()
        self._pause = Deadline.after(0)
        self._ready: list[tuple[MachineSpec, MachineRecord]] = []
        self._closed = False
        self._worker: threading.Thread | None = None

    def take(self, spec: MachineSpec) -> MachineRecord | None:
        """A started machine of this kind that nobody else gets; ``None`` when none is ready. It is the caller's now."""
        with self._changed:
            if self._closed:
                return None
            self._asked = Deadline.after(IDLE_SECONDS)
            if spec != self._wanted:
                self._wanted = spec
                return None  # those of the other kind go when the worker wakes
            while self._ready:
                _, record = self._ready.pop(0)
                if record.vmm_alive and _lasts(record, spec):
                    return record
                self._discard(record)
        return None

    def refill(self) -> None:
        """A run is over: there is time to make a machine for the next one."""
        with self._changed:
            if self._closed:
                return
            if self._worker is None or not self._worker.is_alive():
                # A daemon: the machines are tied to this process, so nothing has to be done at its end.
                self._worker = threading.Thread(target=self._work, name="pyro-pool", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def give_back(self) -> int:
        """End all that are ready, for somebody who needs their memory; how many."""
        with self._changed:
            ready, self._ready = self._ready, []
            self._pause = Deadline.after(AGAIN_SECONDS)
        for _, record in ready:
            self._discard(record)
        return len(ready)

    def wait(self, seconds: float) -> bool:
        """Wait until the pool is full; ``False`` when it was not within *seconds*."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._ready) >= self._size, seconds)

    def close(self) -> None:
        """End all machines that are ready, and make no more. May be called again."""
        with self._changed:
            self._closed = True
            worker = self._worker
            self._changed.notify_all()
        if worker is not None:
            worker.join()
        self.give_back()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                kind, unfit = self._wanted, self._take_unfit()
                wanting = kind is not None and not self._asked.passed and len(self._ready) < self._size
                make = kind if wanting and self._pause.passed and _room() else None
                if make is None and not unfit:
                    self._changed.wait(AGAIN_SECONDS if wanting else min(self._asked.remaining + 1.0, IDLE_SECONDS))
                    continue
            for record in unfit:
                self._discard(record)
            if make is not None:
                self._keep(make, self._make(make))

    def _take_unfit(self) -> list[MachineRecord]:
        """Those that nobody will get any more. The lock is held."""
        idle = self._asked.passed
        fit: list[tuple[MachineSpec, MachineRecord]] = []
        unfit: list[MachineRecord] = []
        for kind, record in self._ready:
            good = not idle and kind == self._wanted and record.vmm_alive and _lasts(record, kind)
            if good:
                fit.append((kind, record))
            else:
                unfit.append(record)
        self._ready = fit
        return unfit

    def _keep(self, kind: MachineSpec, record: MachineRecord | None) -> None:
        with self._changed:
            if record is None:
                self._pause = Deadline.after(AGAIN_SECONDS)
            elif not self._closed and kind == self._wanted:
                self._ready.append((kind, record))
                record = None
            self._changed.notify_all()
        if record is not None:
            self._discard(record)

    def _make(self, kind: MachineSpec) -> MachineRecord | None:
        """A started machine in which usual commands have run; ``None`` when that cannot be had now."""
        machines = self._machines()
        longest = min(kind.ttl_seconds + SHELF_SECONDS, TTL_SECONDS_LIMITS[1])
        created: MachineRecord | None = None
        try:
            created = machines.create(replace(kind, ttl_seconds=longest), progress=Silent(), with_caller=True)
            record = machines.start(created.machine_id, progress=Silent())
            warm_up(machines.channels(record), WARM_UP)
        except (PyroError, OSError):  # the latter: out of descriptors, for instance
            if created is not None:
                self._discard(created)
            return None
        return record

    def _discard(self, record: MachineRecord) -> None:
        with contextlib.suppress(PyroError):  # the next sweep removes what cannot be removed now
            self._machines().delete(record.machine_id)


def _lasts(record: MachineRecord, spec: MachineSpec) -> bool:
    """Whether the machine has as long to live as *spec* asks for, or as long as one that waits can have."""
    return record.expires_at - time.time() >= min(spec.ttl_seconds, TTL_SECONDS_LIMITS[1] - SHELF_SECONDS)


def _room() -> bool:
    """Whether a machine can be kept ready and a run of somebody else still fits."""
    available = available_mib()
    return available is None or available >= 2 * (WORKING_MIB + RESERVE_MIB)
