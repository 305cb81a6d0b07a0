"""Processes by identity."""

from pyro_mcp.host.processes import ProcessId, resident_mib


def test_a_process_that_is_gone_takes_no_memory() -> None:
    assert resident_mib(ProcessId(2**22 + 1, 1)) == 0
    assert resident_mib(ProcessId.current()) > 0
