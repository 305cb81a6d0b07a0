"""Machines kept ready by a process that lives long."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pyro_mcp.engine import pool as pools
from pyro_mcp.engine.store import Store
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.model import DEFAULT_TTL_SECONDS
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

pytestmark = pytest.mark.guest

FILLED_SECONDS = 120.0
SCRIPT = """
import sys
from pyro_mcp import Pyro
pyro = Pyro(pool=1)
pyro.run_in_vm(environment="debian:12", command="true")
assert pyro.wait_for_pool(120)
print("full", flush=True)
sys.stdin.read()
"""


def machines(paths: Paths) -> list[str]:
    return [record.machine_id for record in Store(paths.database).all()[0]]


def test_a_run_takes_the_machine_that_is_ready_and_another_takes_its_place(home: Paths) -> None:
    with Pyro(pool=1) as pyro:
        first = pyro.run_in_vm(environment="debian:12", command="cat /etc/machine-id")
        assert pyro.wait_for_pool(FILLED_SECONDS)
        (ready,) = machines(home)
        second = pyro.run_in_vm(environment="debian:12", command="cat /etc/machine-id; ls /root; cat /root/x")
        assert second["vm_id"] == ready
        assert second["stdout"] != first["stdout"]
        assert pyro.wait_for_pool(FILLED_SECONDS)
        assert machines(home) != [ready]
    assert machines(home) == []


def test_a_machine_of_another_kind_is_not_handed_out(home: Paths) -> None:
    with Pyro(pool=1) as pyro:
        pyro.run_in_vm(environment="debian:12", command="true")
        assert pyro.wait_for_pool(FILLED_SECONDS)
        ready = machines(home)
        result = pyro.run_in_vm(environment="debian:12", command="grep MemTotal /proc/meminfo", mem_mib=512)
        assert result["vm_id"] not in ready
        assert int(result["stdout"].split()[1]) < 512 << 10
        # The pool follows: what is ready now is of the kind asked for last.
        assert until(lambda: bool(machines(home)) and machines(home) != ready, Deadline.after(FILLED_SECONDS))


def test_a_closed_pool_still_runs(home: Paths) -> None:
    pyro = Pyro(pool=2)
    pyro.close()
    assert pyro.run_in_vm(environment="debian:12", command="echo fine")["stdout"] == "fine\n"
    assert machines(home) == []


def test_a_machine_that_has_waited_too_long_to_live_as_long_as_is_asked_for_is_not_handed_out(
    home: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "SHELF_SECONDS", 1)
    with Pyro(pool=1) as pyro:
        pyro.run_in_vm(environment="debian:12", command="true")
        assert pyro.wait_for_pool(FILLED_SECONDS)
        (ready,) = Store(home.database).all()[0]
        assert until(lambda: ready.expires_at - time.time() < DEFAULT_TTL_SECONDS, Deadline.after(FILLED_SECONDS))
        result = pyro.run_in_vm(environment="debian:12", command="echo fresh")
        assert result["vm_id"] != ready.machine_id
        assert result["stdout"] == "fresh\n"
        assert ready.machine_id not in machines(home)


def test_memory_that_nobody_asks_for_is_given_back(home: Paths) -> None:
    with Pyro(pool=1) as pyro:
        pyro.run_in_vm(environment="debian:12", command="true")
        assert pyro.wait_for_pool(FILLED_SECONDS)
        assert machines(home) != []
        pool = pyro._pool
        assert pool is not None
        pool._asked = Deadline.after(0)  # as if the last run were five minutes old
        pool.refill()
        assert until(lambda: machines(home) == [], Deadline.after(FILLED_SECONDS))


def test_no_machine_is_kept_ready_where_memory_is_short(home: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def short() -> int:
        looked.set()
        return 1

    monkeypatch.setattr(pools, "available_mib", short)
    monkeypatch.setattr(pools, "AGAIN_SECONDS", 0.2)
    with Pyro(pool=1) as pyro:
        pyro.run_in_vm(environment="debian:12", command="true")
        for _ in range(3):  # it looks again and again, and makes none
            assert looked.wait(FILLED_SECONDS)
            looked.clear()
        assert machines(home) == []
        monkeypatch.setattr(pools, "available_mib", lambda: None)
        assert pyro.wait_for_pool(FILLED_SECONDS)


def test_kill_minus_nine_of_the_process_takes_the_machines_that_were_ready(home: Paths) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"full\n"
        running = [record.running for record in Store(home.database).all()[0]]
        assert len(running) == 1
        process.send_signal(signal.SIGKILL)
        assert until(lambda: not any(one and one.vmm.alive for one in running), Deadline.after(20))
    finally:
        process.kill()
        process.communicate()
    Pyro().reap_expired()
    assert machines(home) == []
