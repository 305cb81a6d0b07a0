"""What the step that makes a machine's network says, as an error with what is missing and what provides it."""

import pytest

from pyro_mcp.drivers.network_faults import network_fault

SAID = {
    "make a network namespace: operation not permitted": "unprivileged_userns",
    "the rules were refused: Error: Could not process rule: No such file or directory": "modprobe -a nf_tables",
    "uplink: the host's table: Error: Could not process rule: Operation not supported": "modprobe -a nf_tables",
    "/dev/net/tun: make tap0: device or resource busy": "modprobe tun",
    "uplink: veth: operation not supported": "modprobe veth",
    "uplink: pasta did not make the uplink": "passt",
    "uplink: /usr/bin/pasta ended: exit status 1": "passt",
    "uplink: no free address for the uplink": "Delete machines",
    "the sky fell\nin two lines": "pyro doctor",
}


@pytest.mark.parametrize("said", SAID)
def test_each_failure_has_its_remedy_and_its_own_words(said: str) -> None:
    error = network_fault(said)
    assert error.code == "network_unavailable"
    assert SAID[said] in error.remedy
    assert said.splitlines()[0] in str(error)
    assert list(error.details) == said.splitlines()
