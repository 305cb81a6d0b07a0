"""Run this checkout's tests/lab in the lab (src/pyro_mcp/testing/lab), as root and as a normal user.

Arguments that are not known here go to pytest: ``scripts/lab.py -k vsock``. What the runs wrote is in build/lab/.
"""

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import NoReturn

from pyro_mcp.config import load
from pyro_mcp.errors import EXIT_FAILURE, HostFault, PyroError
from pyro_mcp.paths import APPLICATION, Paths
from pyro_mcp.testing import hostile
from pyro_mcp.testing.lab.kept import drop
from pyro_mcp.testing.lab.session import USERS, Request, run

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "test-cache"  # shared with tests/guest
RESULTS = ROOT / "build" / "lab"
TESTS = "tests/lab"


class _Lines:
    """Progress as lines on stderr."""

    def phase(self, name: str, **fields: object) -> None:
        self.note(" ".join([name, *(f"{key}={value}" for key, value in fields.items())]))

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """Say nothing: lines are for stages."""

    def note(self, text: str) -> None:
        sys.stderr.write(f"[lab] {text}\n")
        sys.stderr.flush()


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="give the runs 90 minutes")
    parser.add_argument("--minutes", type=float, default=0, help="bound on the runs (default: 20, with --full 90)")
    parser.add_argument("--user", choices=list(USERS), action="append", help="run only as this user")
    parser.add_argument("--command", default="", help="run this shell command in place of pytest")
    parser.add_argument(
        "--keep", action="store_true", help="use a lab that goes on afterwards (for four hours at most)"
    )
    parser.add_argument("--drop", action="store_true", help="end the lab that was kept, and do nothing else")
    parser.add_argument(
        "--cache", type=Path, default=CACHE, help="where its parts are kept (default: build/test-cache)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="for logs and results (default: build/lab)")
    options, arguments = parser.parse_known_args()
    if not any(Path(word.partition("::")[0]).exists() for word in arguments):
        arguments.insert(0, TESTS)
    request = Request(
        checkout=ROOT,
        results=options.results.absolute(),
        arguments=arguments,
        users=options.user or list(USERS),
        seconds=60 * (options.minutes or (90 if options.full else 20)),
        command=options.command,
        keep=options.keep,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    with contextlib.suppress(HostFault):  # without Go the tests with it are skipped, and counted
        hostile.program(ROOT)  # there is no compiler in the lab
    cache = options.cache.absolute()
    paths = Paths(cache / "state", cache / APPLICATION, cache / APPLICATION / "environments")
    try:
        if options.drop:
            drop(paths)
            return 0
        return run(paths, load(), request, _Lines(), _show)
    except PyroError as error:
        sys.stderr.write("".join(f"{line}\n" for line in [*error.details, f"lab: {error.cause}", error.remedy]))
        return EXIT_FAILURE


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _end(number: int, _frame: object) -> NoReturn:
    """End at once: the lab is taken down on the way out, which no second signal cuts short."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
