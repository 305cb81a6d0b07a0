"""Who is no root in a machine's user namespace may still read its rules."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pyro_mcp.network.counters import ENTER

USER = 1000
TABLE = "table inet pyro { counter denied_private { packets 7 bytes 9 }; }"
# As agent/launch makes it: one user, by their own number, who is allowed what the kernel asks for the rules.
MACHINE = ("unshare", "--user", "--map-current-user", "--keep-caps", "--net")
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if os.geteuid() == 0 else ()


@pytest.fixture
def machine() -> Iterator[int]:
    """A process in the namespaces of a normal user's machine, and its pid."""
    script = f"nft '{TABLE}' && echo $$ && exec cat"
    argv = [*AS_USER, *MACHINE, "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


def entered(*words: str) -> "subprocess.CompletedProcess[str]":
    # The system's Python, because a normal user may not run the one of root's checkout.
    argv = [*AS_USER, "/usr/bin/python3" if AS_USER else sys.executable, "-I", "-S", "-", *words]
    return subprocess.run(argv, input=ENTER.read_text(), capture_output=True, text=True, check=False)


def test_the_rules_of_a_users_machine_are_read(machine: int) -> None:
    done = entered(str(machine), "nft", "list", "counters")
    assert done.returncode == 0, done.stderr
    assert "packets 7 bytes 9" in done.stdout


def test_what_is_not_there_is_an_error_in_one_line() -> None:
    done = entered("0", "true")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
