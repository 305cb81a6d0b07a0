"""One deadline per operation, made at the surface and handed down."""

import math
import time
from typing import NamedTuple

from pyro_mcp.errors import OperationFailed


class Deadline(NamedTuple):
    """A point on the monotonic clock, in seconds; ``math.inf`` never comes."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The point *seconds* from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def never(cls) -> "Deadline":
        """A deadline that does not come."""
        return cls(math.inf)

    @property
    def remaining(self) -> float:
        """Seconds left; 0.0 when it has come."""
        return max(0.0, self.at - time.monotonic())

    @property
    def timeout(self) -> float | None:
        """Seconds left in the form that sockets and selectors take (``None``: wait without end)."""
        return None if math.isinf(self.at) else self.remaining

    @property
    def passed(self) -> bool:
        """Whether it has come."""
        return time.monotonic() >= self.at

    def sooner(self, seconds: float) -> "Deadline":
        """This deadline, or one *seconds* from now if that comes first."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    def check(self, what: str, error: type[OperationFailed] = OperationFailed) -> None:
        """Raise *error* naming *what* if the deadline has come."""
        if self.passed:
            raise error(f"{what} took too long")
