"""On the host itself no policy would hold, so a command that may run there gets no network."""

import json
from typing import Any

import pytest

from pyro_mcp.cli.main import run
from pyro_mcp.errors import NetworkUnavailable
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro


@pytest.mark.parametrize("asked", [{"network": True}, {"allow_hosts": ["a.example"]}, {"network_policy": "learn"}])
def test_a_network_is_refused_on_the_host_itself(no_vmm: Paths, asked: dict[str, Any]) -> None:
    pyro = Pyro()
    for make in (pyro.create_vm, pyro.create_task):
        with pytest.raises(NetworkUnavailable, match="no network policy would hold") as caught:
            make(environment="debian:12", allow_host_compat=True, **asked)
        assert "--network" in caught.value.remedy
    assert not pyro.list_tasks()["tasks"]
    assert not list(no_vmm.machines.glob("*"))


def test_nothing_of_the_command_is_run(no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    mark = no_vmm.state / "ran"
    words = ["run", "--json", "--network", "--allow-host-compat", "debian:12", "--", f"head -c 0 >{mark}"]
    assert run(words) == 125
    assert json.loads(capsys.readouterr().out)["code"] == "network_unavailable"
    assert not mark.exists()
    assert run([word for word in words if word != "--network"]) == 0
    assert mark.exists()
