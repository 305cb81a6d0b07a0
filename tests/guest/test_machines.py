"""Machines through the SDK, with real guests; known across processes."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyro_mcp import Pyro
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.errors import InvalidRequest, MachineExpired, PyroError, UnknownMachine, WrongState
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

from .conftest import leftovers, said_in

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("home")]


def in_another_process(program: str) -> str:
    script = f"from pyro_mcp import Pyro\npyro = Pyro()\n{program}"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_a_machine_is_created_started_used_and_deleted(home: Paths) -> None:
    pyro = Pyro()
    created = pyro.create_vm(environment="debian:12", vcpu_count=2, mem_mib=512)
    assert created["state"] == "created"
    assert created["expires_at"] - created["created_at"] == created["ttl_seconds"] == 600
    started = pyro.start_vm(created["vm_id"])
    assert started["state"] == "started"
    assert pyro.status_vm(created["vm_id"])["state"] == "started"
    result = pyro.exec_vm(created["vm_id"], command="nproc; awk '/MemTotal/ {print $2}' /proc/meminfo")
    cpus, memory_kib = result["stdout"].split()
    assert int(cpus) == 2
    assert 400_000 < int(memory_kib) < 524_288
    with pytest.raises(UnknownMachine):
        pyro.status_vm(created["vm_id"])
    assert leftovers(home) == []


def test_a_machine_made_here_is_used_by_another_process(home: Paths) -> None:
    vm_id = Pyro().create_vm(environment="debian:12")["vm_id"]
    in_another_process(f"pyro.start_vm({vm_id!r})")
    assert Pyro().status_vm(vm_id)["state"] == "started"
    assert in_another_process(f"print(pyro.exec_vm({vm_id!r}, command='echo there')['stdout'])") == "there\n\n"
    assert leftovers(home) == []


def test_a_stopped_machine_can_be_started_again() -> None:
    pyro = Pyro()
    vm_id = pyro.create_vm(environment="debian:12")["vm_id"]
    pyro.start_vm(vm_id)
    assert pyro.stop_vm(vm_id)["state"] == "stopped"
    with pytest.raises(WrongState):
        pyro.exec_vm(vm_id, command="true")
    assert pyro.start_vm(vm_id)["state"] == "started"
    assert pyro.delete_vm(vm_id) == {"vm_id": vm_id, "deleted": True, "reason": "explicit_delete"}
    with pytest.raises(UnknownMachine):
        pyro.delete_vm(vm_id)


def test_files_are_there_after_every_start() -> None:
    pyro = Pyro()
    vm_id = pyro.create_vm(environment="debian:12")["vm_id"]
    written = ""
    for number in range(3):
        pyro.start_vm(vm_id)
        written += f"start {number}\n"
        assert said_in(vm_id, f"echo start {number} >> /root/log; cat /root/log") == written
        pyro.stop_vm(vm_id)
    pyro.start_vm(vm_id)
    assert pyro.exec_vm(vm_id, command="cat /root/log")["stdout"] == written


def another_process_ended(program: str, by: signal.Signals, *, when: Callable[[], bool]) -> None:
    """Run *program* in another process, and send it *by* as soon as *when* holds."""
    script = f"from pyro_mcp import Pyro\npyro = Pyro()\n{program}"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        try:
            assert until(when, Deadline.after(60))
        finally:
            process.send_signal(by)
        assert process.wait(60) != 0


@pytest.fixture
def written(home: Paths) -> Iterator[str]:
    """A started machine with a file."""
    vm_id = Pyro().create_vm(environment="debian:12")["vm_id"]
    Pyro().start_vm(vm_id)
    said_in(vm_id, "echo precious > /root/file; sync")
    yield vm_id
    with contextlib.suppress(UnknownMachine):
        Pyro().delete_vm(vm_id)


def on_record(home: Paths, vm_id: str) -> MachineRecord:
    return Store(home.database).get(vm_id)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_disk_outlives_a_process_that_ends_while_it_stops_the_machine(
    home: Paths, written: str, by: signal.Signals
) -> None:
    running = on_record(home, written).running
    assert running is not None
    os.kill(running.vmm.pid, signal.SIGSTOP)  # a guest that does not go off, so that it is waited for
    another_process_ended(f"pyro.stop_vm({written!r})", by, when=lambda: on_record(home, written).state == "stopping")
    assert Pyro().status_vm(written)["state"] == "stopped"
    assert not running.vmm.alive
    in_another_process(f"pyro.start_vm({written!r})")
    assert said_in(written, "cat /root/file") == "precious\n"


def test_a_disk_outlives_a_process_that_is_killed_while_it_starts_the_machine_again(home: Paths, written: str) -> None:
    Pyro().stop_vm(written)

    def boots() -> bool:
        record = on_record(home, written)
        return record.state == "starting" and record.running is not None

    another_process_ended(f"pyro.start_vm({written!r})", signal.SIGKILL, when=boots)
    assert Pyro().status_vm(written)["state"] == "stopped"
    in_another_process(f"pyro.start_vm({written!r})")
    assert said_in(written, "cat /root/file") == "precious\n"


def imported(directory: Path, content: str) -> str:
    """The name of an image with one file of that *content*, imported in place of the one that had the name before."""
    with tarfile.open(directory / "image.tar", "w") as image:
        member = tarfile.TarInfo("etc/motd")
        member.size = len(content)
        image.addfile(member, io.BytesIO(content.encode()))
    return Pyro().import_environment(directory / "image.tar", name="mine:1")["name"]


def test_a_disk_is_not_put_on_another_image(home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(tmp_path / "environments"))
    monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
    vm_id = Pyro().create_vm(environment=imported(tmp_path, "one"))["vm_id"]
    imported(tmp_path, "two")  # the disk is empty until the first start: any image will do
    Pyro().start_vm(vm_id)
    Pyro().stop_vm(vm_id)
    imported(tmp_path, "three")
    with pytest.raises(WrongState, match="another image") as caught:
        Pyro().start_vm(vm_id)
    assert "mine:1" in caught.value.remedy
    assert on_record(home, vm_id).state == "stopped"
    imported(tmp_path, "two")
    assert Pyro().start_vm(vm_id)["state"] == "started"
    Pyro().delete_vm(vm_id)


@pytest.mark.parametrize("vm_id", ["", "../../../../etc", "0123456789AB", "0123456789ab\n", "0" * 13, "no"])
def test_an_id_that_is_none_is_refused(vm_id: str) -> None:
    with pytest.raises(InvalidRequest):
        Pyro().delete_vm(vm_id)


def test_only_one_of_two_commands_gets_the_machine() -> None:
    pyro = Pyro()
    vm_id = pyro.create_vm(environment="debian:12")["vm_id"]
    pyro.start_vm(vm_id)
    outcomes: list[str] = []

    def execute() -> None:
        try:
            outcomes.append(pyro.exec_vm(vm_id, command="sleep 1; echo done")["stdout"])
        except PyroError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=execute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outcomes.remove("done\n")
    assert outcomes[0] in ("wrong_state", "unknown_machine")


def test_a_machine_past_its_time_is_gone_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pyro = Pyro()
    vm_id = pyro.create_vm(environment="debian:12", ttl_seconds=60)["vm_id"]
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(MachineExpired, match="automatically deleted"):
        pyro.status_vm(vm_id)
    assert pyro.reap_expired() == {"deleted_vm_ids": [], "count": 0}


def test_machines_past_their_time_are_reaped_and_named(home: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    pyro = Pyro()
    first, second = [pyro.create_vm(environment="debian:12", ttl_seconds=seconds)["vm_id"] for seconds in (300, 600)]
    pyro.start_vm(first)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert pyro.reap_expired() == {"deleted_vm_ids": [first], "count": 1}
    assert not home.machine(first).directory.exists()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert Pyro().reap_expired() == {"deleted_vm_ids": [second], "count": 1}  # though its first use has deleted it
    assert Store(home.database).all() == ([], [])


def test_output_is_streamed_to_the_callbacks_and_kept_in_the_result() -> None:
    pieces: list[bytes] = []
    result = Pyro().run_in_vm(
        environment="debian:12", command="echo one; echo two >&2; cat", stdin=b"three", on_stdout=pieces.append
    )
    assert b"".join(pieces) == b"one\nthree"
    assert (result["stdout"], result["stderr"]) == ("one\nthree", "two\n")
    assert result["cleanup"] == {"vm_id": result["vm_id"], "deleted": True, "reason": "post_exec_cleanup"}


def test_a_failing_callback_ends_the_run_and_leaves_nothing(home: Paths) -> None:
    def fail(_data: bytes) -> None:
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        Pyro().run_in_vm(environment="debian:12", command="echo x; sleep 60", on_stdout=fail)
    assert leftovers(home) == []


def test_a_long_output_is_cut_in_the_middle_and_says_so() -> None:
    result = Pyro().run_in_vm(environment="debian:12", command="seq 1 400000", timeout_seconds=120)
    assert result["stdout"].startswith("1\n2\n")
    assert result["stdout"].endswith("399999\n400000\n")
    assert "bytes cut" in result["stdout"]
    assert result["stdout_truncated"]
    assert result["stdout_bytes"] == sum(len(f"{number}\n") for number in range(1, 400_001))
    assert len(result["stdout"]) < 1_100_000
