"""``pyro`` and ``python -m pyro_mcp``."""

import gc
import os
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    # Scripts ask for it at every start, and the command line takes ten times as long to load as this answer.
    if sys.argv[1:] == ["--version"]:
        from pyro_mcp import __version__

        sys.stdout.write(f"pyro {__version__}\n")
        return
    # Loading makes many objects and no garbage: the collector's usual eagerness is a sixth of the time it takes.
    gc.set_threshold(50_000, 20, 100)
    from pyro_mcp.cli.main import run

    _leave(run(sys.argv[1:]))


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
