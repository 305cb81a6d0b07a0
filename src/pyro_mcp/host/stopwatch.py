"""Where the time of a run goes: named stages, measured only while somebody listens."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

_listening: ContextVar[dict[str, float] | None] = ContextVar("stopwatch", default=None)


@contextlib.contextmanager
def listen() -> Iterator[dict[str, float]]:
    """Collect the stages that this thread goes through: seconds by name, in the order of their first beginning."""
    stages: dict[str, float] = {}
    token = _listening.set(stages)
    try:
        yield stages
    finally:
        _listening.reset(token)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time in this block as *name*; blocks of one name add up. Do not nest them."""
    stages = _listening.get()
    if stages is None:
        yield
        return
    stages.setdefault(name, 0.0)
    began = time.monotonic()
    try:
        yield
    finally:
        stages[name] += time.monotonic() - began


def since_process_start() -> float:
    """Seconds since the kernel started this process; it counts in hundredths (proc(5) stat, starttime)."""
    stat = Path("/proc/self/stat").read_bytes()
    ticks = int(stat[stat.rindex(b")") + 2 :].split()[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
