"""The processes below a pyro command, and whether they end."""

import itertools
import os
import select
from pathlib import Path

END_SECONDS = 20.0


def descendants(pid: int) -> dict[str, int]:
    """The processes below *pid*, by the name of what they run; of ours, by what they are."""
    found: dict[str, int] = {}
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    for child in map(int, itertools.chain(*children)):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        program = Path(words[0].decode()).name
        found["gate" if words[1:2] == [b"gate"] else "launcher" if words[1:2] == [b"launch"] else program] = child
        found |= descendants(child)
    return found


def ends(pidfd: int, seconds: float = END_SECONDS) -> bool:
    """Whether the process ends, as it must by now or in a moment; closes *pidfd*."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    try:
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(pidfd)
