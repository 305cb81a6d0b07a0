"""An idle task gives memory back without being told to: the keeper asks its guest."""

from pathlib import Path

import pytest

from pyro_mcp import Pyro
from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import resident_mib
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

USED_MIB = 80
USE = f"dd if=/dev/zero of=/dev/shm/used bs=1M count={USED_MIB} 2>/dev/null && rm /dev/shm/used && echo used"
SECONDS = 120.0


def test_an_idle_task_gives_back_what_its_commands_have_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYRO_BOOT_TIMEOUT_SECONDS", "240")
    with Pyro() as pyro:
        task = pyro.create_task(environment="debian:12", mem_mib=512)["task_id"]
        try:
            running = Store(Paths.of_user().database).get(task).running
            assert running is not None
            assert pyro.exec_task(task, command=USE, timeout_seconds=SECONDS)["stdout"] == "used\n"
            before = resident_mib(running.vmm)
            assert until(lambda: resident_mib(running.vmm) <= before - USED_MIB // 2, Deadline.after(SECONDS))
            assert pyro.exec_task(task, command=USE, timeout_seconds=SECONDS)["stdout"] == "used\n"
        finally:
            pyro.delete_task(task)
    assert "MiB back" in Paths.of_user().keeper_log.read_text()
