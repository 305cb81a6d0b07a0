"""Processor time of a command and of all it starts, those it does not wait for included: a cgroup counts it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

ROOTS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup"))
EMPTY_SECONDS = 10.0


class Counter:
    """A cgroup of our own, version 1 or 2."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def charged(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """The command with its processor time, and that of its descendants, counted here."""
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._place / "cgroup.procs"), *argv)

    def milliseconds(self) -> float:
        """What was used until now."""
        usage = self._place / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e6
        words = (self._place / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e3


@contextlib.contextmanager
def counter() -> Iterator[Counter | None]:
    """A counter, or ``None`` where this process may not make a cgroup."""
    place = next(filter(None, map(_made, ROOTS)), None)
    if place is None:
        yield None
        return
    try:
        yield Counter(place)
    finally:
        until(lambda: not (place / "cgroup.procs").read_text(), Deadline.after(EMPTY_SECONDS))
        place.rmdir()


def _made(root: Path) -> Path | None:
    place = root / f"pyro-bench-{os.getpid()}"
    if not (root / "cgroup.procs").exists():
        return None
    try:
        place.mkdir()
    except OSError:
        return None
    return place
