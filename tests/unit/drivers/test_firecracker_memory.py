"""Squeezing a machine: how long the balloon is held, and that it is always let go again."""

from pathlib import Path

import pytest

from pyro_mcp.drivers.firecracker import memory
from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.requests import Request
from pyro_mcp.errors import MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId


class Vmm(Api):
    """An API that remembers, and a process whose memory goes as *sizes* say, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sizes: int, fails: bool = False) -> None:
        super().__init__(Path("/nowhere"), lambda: "")
        self.targets: list[int] = []
        self._sizes = list(sizes)
        self._fails = fails
        monkeypatch.setattr(memory, "resident_mib", lambda _: self.resident())
        monkeypatch.setattr(memory, "PAUSE", 0.001)
        monkeypatch.setattr(memory, "QUIET_SECONDS", 0.05)

    def resident(self) -> int:
        if not self._sizes:
            raise MachineFault("gone")
        return self._sizes.pop(0) if len(self._sizes) > 1 or self._fails else self._sizes[0]

    def send(self, request: Request, deadline: Deadline) -> dict[str, object]:
        assert request.body is not None
        assert not deadline.passed
        self.targets.append(request.body["amount_mib"])
        return {}


def squeeze(vmm: Vmm, mib: int, seconds: float = 5.0) -> int:
    return memory.squeeze(vmm, ProcessId.current(), mib, Deadline.after(seconds))


def test_the_balloon_is_let_go_when_all_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    vmm = Vmm(monkeypatch, 200, 180, 150, 99)
    assert squeeze(vmm, 100) == 101
    assert vmm.targets == [100, 0]


def test_the_balloon_is_let_go_when_no_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    vmm = Vmm(monkeypatch, 200, 180, 160)
    assert squeeze(vmm, 100) == 40
    assert vmm.targets == [100, 0]


def test_the_balloon_is_let_go_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    vmm = Vmm(monkeypatch, 200)
    assert squeeze(vmm, 100, 0.05) == 0
    assert vmm.targets == [100, 0]


def test_the_balloon_is_let_go_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    vmm = Vmm(monkeypatch, 200, 180, fails=True)
    with pytest.raises(MachineFault):
        squeeze(vmm, 100)
    assert vmm.targets == [100, 0]
