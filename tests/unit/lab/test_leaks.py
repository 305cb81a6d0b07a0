"""What the lab's tests look for after each of them."""

import subprocess

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.testing.leaks import Everything

SLEEPER = ("sleep", "98765")


def seen(before: Everything) -> list[str]:
    """Others work on this host as well: only what this test has started counts."""
    return [line for line in Everything.now().beyond(before) if " ".join(SLEEPER) in line]


def test_a_program_that_was_not_there_before_is_found_until_it_has_ended() -> None:
    before = Everything.now()
    assert not seen(before)
    with subprocess.Popen(SLEEPER) as process:
        assert until(lambda: len(seen(before)) == 1, Deadline.after(10))  # between fork and exec it is this one
        assert seen(before)[0].split()[0] == str(process.pid)
        process.kill()
    assert not seen(before)


def test_what_was_there_before_is_nobodys_leak() -> None:
    with subprocess.Popen(SLEEPER) as process:
        assert until(lambda: len(seen(Everything(*[frozenset()] * 4))) == 1, Deadline.after(10))
        assert not seen(Everything.now())
        process.kill()
