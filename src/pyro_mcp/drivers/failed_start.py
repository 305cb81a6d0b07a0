"""After a start that failed: its VMM is ended, with all the time that takes, and never hides why the start failed."""

from collections.abc import Callable
from types import TracebackType

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.errors import PyroError
from pyro_mcp.host.deadline import Deadline

STOP_SECONDS = 10.0


def ended_on_failure(
    end: Callable[[RunningVmm, Deadline], None], running: RunningVmm
) -> Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]:
    """What to ``push`` on an ExitStack that is left by a failure: it *ends* the VMM, whose time begins only then.

    That the VMM did not end is told in the details of the error under way.
    """

    def on_exit(_kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            end(running, Deadline.after(STOP_SECONDS))
        except PyroError as survivor:
            also(error, survivor.cause)

    return on_exit


def also(error: BaseException | None, line: str) -> None:
    """Add what went wrong besides to the *error* under way."""
    if isinstance(error, PyroError):
        error.details = (*error.details, line)
    elif error is not None:
        error.add_note(line)
