"""Whether one more machine fits."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.file_limit import file_limit
from tests.unit.engine.test_store import record

from pyro_mcp import Pyro
from pyro_mcp.config import load
from pyro_mcp.drivers.base import FILE_SLACK
from pyro_mcp.engine.capacity import MIB, RESERVE_MIB, WORKING_MIB, available_mib, check_capacity, check_file_limit
from pyro_mcp.engine.database import Database
from pyro_mcp.engine.records import MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.errors import CapacityReached, NoSpace
from pyro_mcp.paths import Paths

SLACK_MIB = FILE_SLACK // MIB
ANY_SPACE = {"PYRO_MIN_FREE_MIB": "0"}
PLENTY = 1 << 20


class LetsInAnother(Database):
    """Another connection comes in before transaction number *turn* of this one, if there are as many."""

    def __init__(self, path: Path, turn: int, another: Callable[[], None]) -> None:
        super().__init__(path)
        self._turn = turn
        self._another = another

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self._turn -= 1
        if self._turn == 0:
            self._another()
        with super().transaction() as connection:
            yield connection


def machine(number: int) -> MachineRecord:
    return replace(record(), machine_id=f"{number:012x}")


def meminfo(directory: Path, mib: int) -> Path:
    path = directory / "meminfo"
    path.write_text(f"MemTotal:       99999999 kB\nMemFree:        1 kB\nMemAvailable:   {mib * 1024} kB\n")
    return path


def test_as_many_machines_as_the_user_allows_and_no_more(paths: Paths) -> None:
    store = Store(paths.database)
    for number in range(3):
        store.insert(machine(number), most=3)
    with pytest.raises(CapacityReached, match=r"max active VMs reached \(3\)"):
        store.insert(machine(3), most=3)
    store.insert(machine(3))  # there is no limit unless the user sets one


def test_a_machine_that_waits_for_another_leaves_it_its_place(paths: Paths) -> None:
    store = Store(paths.database)
    store.insert(machine(0), most=1)
    store.insert(machine(1), most=1, instead_of=machine(0).machine_id)
    with pytest.raises(CapacityReached):
        store.insert(machine(2), most=1, instead_of=machine(0).machine_id)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_of_two_connections_that_want_the_last_place_one_gets_it(paths: Paths, turn: int) -> None:
    store, other = Store(paths.database), Store(paths.database)

    def another() -> None:
        other.insert(machine(2), most=1)

    store.database = LetsInAnother(paths.database, turn, another)
    with contextlib.suppress(CapacityReached):
        store.insert(machine(1), most=1)
    assert len(other.all()[0]) == 1


def test_a_machine_that_does_not_fit_is_not_put_on_record(no_vmm: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_MAX_ACTIVE_VMS", "1")
    pyro = Pyro()
    first = pyro.create_vm(environment="debian:12", allow_host_compat=True)
    with pytest.raises(CapacityReached):
        pyro.create_vm(environment="debian:12", allow_host_compat=True)
    assert [record.machine_id for record in Store(no_vmm.database).all()[0]] == [first["vm_id"]]
    pyro.delete_vm(first["vm_id"])
    pyro.delete_vm(pyro.create_vm(environment="debian:12", allow_host_compat=True)["vm_id"])


@pytest.mark.parametrize(
    ("mem_mib", "needed"),
    [(128, 128 + RESERVE_MIB), (WORKING_MIB, WORKING_MIB + RESERVE_MIB), (16_384, WORKING_MIB + RESERVE_MIB)],
)
def test_a_machine_needs_the_memory_it_will_touch_and_some_for_the_host(
    paths: Paths, tmp_path: Path, mem_mib: int, needed: int
) -> None:
    settings = load(ANY_SPACE)
    check_capacity(paths, settings, mem_mib=mem_mib, meminfo=meminfo(tmp_path, needed))
    with pytest.raises(CapacityReached, match=f"only {needed - 1} MiB of memory are free .* about {needed} MiB"):
        check_capacity(paths, settings, mem_mib=mem_mib, meminfo=meminfo(tmp_path, needed - 1))


@pytest.mark.parametrize("content", ["", "MemAvailable:\n", "MemAvailable: lots kB\n", "MemTotal: 5 kB\n"])
def test_a_host_that_does_not_tell_its_free_memory_is_not_refused(paths: Paths, tmp_path: Path, content: str) -> None:
    odd = tmp_path / "meminfo"
    odd.write_text(content)
    assert available_mib(odd) is None
    assert available_mib(tmp_path / "none") is None
    check_capacity(paths, load(ANY_SPACE), mem_mib=1024, meminfo=odd)


def test_this_hosts_free_memory_is_known() -> None:
    assert (available_mib() or 0) > 0


def test_the_disk_has_to_have_the_space_that_the_settings_say(paths: Paths, tmp_path: Path) -> None:
    memory = meminfo(tmp_path, PLENTY)
    check_capacity(paths, load(ANY_SPACE), mem_mib=1024, meminfo=memory)
    more_than_any_disk = load({"PYRO_MIN_FREE_MIB": str(1 << 30)})
    with pytest.raises(NoSpace, match=f"MiB are free for .*, {1 << 30} MiB have to be") as caught:
        check_capacity(paths, more_than_any_disk, mem_mib=1024, meminfo=memory)
    assert str(paths.state) in caught.value.cause
    assert "PYRO_MIN_FREE_MIB" in caught.value.remedy


@pytest.mark.parametrize(("disk_mib", "mem_mib"), [(4096, 1024), (256, 1024)])
def test_files_may_be_as_large_as_the_disk_or_the_memory_and_a_little_more(disk_mib: int, mem_mib: int) -> None:
    check_file_limit(disk_mib=disk_mib, mem_mib=mem_mib)
    needed = max(disk_mib, mem_mib) + SLACK_MIB
    with file_limit(needed * MIB):
        check_file_limit(disk_mib=disk_mib, mem_mib=mem_mib)
    with (
        file_limit(needed * MIB - 1),
        pytest.raises(NoSpace, match=f"may have {needed - 1} MiB, the machine needs {needed} MiB") as caught,
    ):
        check_file_limit(disk_mib=disk_mib, mem_mib=mem_mib)
    assert "ulimit -f" in caught.value.remedy
