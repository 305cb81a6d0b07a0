"""``pyro`` and ``python -m pyro_mcp``."""

import gc
import os
import sys

INTERRUPTED = 130
CLOSED = 141  # as a shell reports SIGPIPE


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        _main()
    except KeyboardInterrupt:  # before the command line was there to hear it
        sys.stderr.write("[error] interrupted\n")
        _leave(INTERRUPTED)


def _main() -> None:
    _open_standard_streams()
    # Scripts ask for it at every start, and the command line takes ten times as long to load as this answer.
    if sys.argv[1:] == ["--version"]:
        from pyro_mcp import __version__

        try:
            sys.stdout.write(f"pyro {__version__}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            _leave(CLOSED)
        except OSError as error:
            sys.stderr.write(f"[error] the output cannot be written: {error.strerror}\n")
            _leave(1)
        return
    # Loading makes many objects and no garbage: the collector's usual eagerness is a sixth of the time it takes.
    gc.set_threshold(50_000, 20, 100)
    from pyro_mcp.cli.main import run

    _leave(run(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Give the null device the place of a standard stream that is closed.

    Otherwise the next file that is opened takes its number, and what the guest prints goes into that.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            # In order: each open takes the lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - for as long as we live


def _leave(status: int) -> None:
    """End with *status*, without taking everything apart first: the kernel is quicker, and nothing waits for it.

    What is left undone on purpose: SQLite writing its log back, which it does when it has grown.
    """
    import contextlib
    import threading

    if threading.active_count() > 1:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
