"""The one module that sleeps. Everything else waits on an event."""

import time
from collections.abc import Callable, Iterator

from pyro_mcp.host.deadline import Deadline

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05


def attempts(deadline: Deadline, *, longest: float = LONGEST_PAUSE) -> Iterator[int]:
    """Count attempts 0, 1, 2, ... with growing pauses (seconds) between them, until *deadline* has come.

    For conditions the kernel does not announce. There is always a first attempt and one at the very end.
    """
    pause = FIRST_PAUSE
    number = 0
    while True:
        yield number
        if deadline.passed:
            return
        time.sleep(min(pause, deadline.remaining))
        pause = min(pause * 2, longest)
        number += 1


def until(condition: Callable[[], bool], deadline: Deadline) -> bool:
    """Wait until *condition* holds; ``False`` when *deadline* came first."""
    return any(condition() for _ in attempts(deadline))
