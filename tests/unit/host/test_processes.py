"""Processes by identity."""

import os
import subprocess

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId, resident_mib


def test_a_process_that_is_gone_takes_no_memory() -> None:
    assert resident_mib(ProcessId(2**22 + 1, 1)) == 0
    assert resident_mib(ProcessId.current()) > 0


def test_the_end_of_a_process_is_waited_for() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        process = ProcessId.of(child.pid)
        assert process is not None
        assert not process.ended(Deadline.after(0))
        child.communicate(b"")
        assert process.ended(Deadline.never())


def test_a_process_whose_number_has_another_has_ended() -> None:
    assert ProcessId(os.getpid(), 1).ended(Deadline.after(0))
