"""The store of records."""

import dataclasses
import json
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.config import load
from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.engine.database import SCHEMA
from pyro_mcp.engine.machines import Context
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord, State
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.sweep import sweep
from pyro_mcp.environments.facade import Environments
from pyro_mcp.errors import StorageFault, UnknownMachine, WrongState
from pyro_mcp.host.files import private_directory
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import Paths


def record(machine_id: str = "0123456789ab") -> MachineRecord:
    me = ProcessId.current()
    return MachineRecord(
        machine_id=machine_id,
        state="created",
        environment="debian:12",
        environment_version="1.0.0",
        vcpu_count=1,
        mem_mib=1024,
        disk_mib=4096,
        ttl_seconds=600,
        created_at=1.0,
        expires_at=601.0,
        allow_host_compat=False,
        driver="qemu",
        execution_mode="guest_serial",
        isolation=NO_ISOLATION,
        owner=me,
        actor=me,
        running=RunningVmm(ProcessId(10, 20), ProcessId(11, 21)),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state" / "pyro.db")


def damage(store: Store, machine_id: str, text: str) -> None:
    connection = sqlite3.connect(store.database.path)
    connection.execute("UPDATE machines SET record = ? WHERE machine_id = ?", (text, machine_id))
    connection.commit()
    connection.close()


def test_a_record_comes_back_as_it_went_in(store: Store) -> None:
    store.insert(record())
    assert store.get("0123456789ab") == record()


def test_another_store_on_the_same_file_sees_the_record(store: Store) -> None:
    store.insert(record())
    assert Store(store.database.path).get("0123456789ab") == record()


def test_an_unknown_machine_is_named(store: Store) -> None:
    with pytest.raises(UnknownMachine, match="ffffffffffff"):
        store.get("ffffffffffff")


def test_a_removed_record_cannot_be_brought_back_by_a_late_update(store: Store) -> None:
    store.insert(record())
    store.remove("0123456789ab")
    with pytest.raises(UnknownMachine):
        store.update(record())
    assert store.all() == ([], [])


def test_only_one_of_many_threads_moves_a_machine_on(store: Store) -> None:
    store.insert(record())
    results: list[str] = []

    def start() -> None:
        try:
            store.move("0123456789ab", "starting", allowed=("created",))
            results.append("moved")
        except WrongState:
            results.append("refused")

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["moved"] + ["refused"] * 7


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"machine_id": "../../etc"}', "null", '"x"'])
def test_a_damaged_record_names_itself_and_harms_no_other(store: Store, text: str) -> None:
    store.insert(record())
    store.insert(record("ffffffffffff"))
    damage(store, "0123456789ab", text)
    with pytest.raises(StorageFault, match="0123456789ab"):
        store.get("0123456789ab")
    records, damaged = store.all()
    assert [item.machine_id for item in records] == ["ffffffffffff"]
    assert damaged == ["0123456789ab"]


GONE = ProcessId(ProcessId.current().pid, 1)  # another process had our pid
PROCESS: dict[str, object] = {"pid": 10, "start_ticks": 20}
WRONG: list[Any] = [
    *({field.name: ["wrong"]} for field in dataclasses.fields(MachineRecord)),
    *({"expires_at": value} for value in ("x", None, True, -1, float("nan"), float("inf"), 10**400)),
    *({"mem_mib": value} for value in ("x", None, True, 1.5)),
    *(
        {name: PROCESS | {"pid": pid}}
        for name in ("owner", "actor")
        for pid in (0, -1, 2**31, 10**400, "x", "10", None, True, 1.5)
    ),
    {"actor": PROCESS | {"start_ticks": -1}},
    {"actor": {"pid": 10}},
    {"actor": 10},
    {"running": {"launcher": PROCESS}},
    {"running": {"launcher": PROCESS, "vmm": PROCESS | {"pid": -1}}},
    {"isolation": {"vmm": "none", "accelerator": "none", "sandbox": [1]}},
    {"execution_mode": "guest_telepathy"},
    {"require_isolation": "some"},
    {"network": {"mode": "public"}},
    {"machine_id": "ffffffffffff"},
    {"no_such_field": 1},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong!r:.60}")
def test_a_value_of_the_wrong_kind_makes_a_record_damaged_and_nothing_else(
    store: Store, wrong: dict[str, object]
) -> None:
    store.insert(record())
    store.insert(record("ffffffffffff"))
    damage(store, "0123456789ab", json.dumps(record().as_json() | wrong))
    with pytest.raises(StorageFault, match="0123456789ab"):
        store.get("0123456789ab")
    records, damaged = store.all()
    assert ([item.machine_id for item in records], damaged) == (["ffffffffffff"], ["0123456789ab"])


def test_a_sweep_goes_on_beside_a_record_with_a_value_of_the_wrong_kind(paths: Paths) -> None:
    store, settings = Store(paths.database), load({})
    store.insert(record())
    store.insert(replace(record("ffffffffffff"), running=None))
    damage(store, "0123456789ab", json.dumps(record().as_json() | {"expires_at": "x"}))
    assert sweep(Context(paths, settings, store, Environments(paths, settings))) == (["ffffffffffff"], [])
    assert store.all() == ([], ["0123456789ab"])


def test_a_record_with_a_crafted_id_is_damaged_and_not_followed(store: Store) -> None:
    store.insert(record())
    crafted = record().as_json() | {"machine_id": "../../../etc"}
    damage(store, "0123456789ab", json.dumps(crafted))
    assert store.all() == ([], ["0123456789ab"])


def test_a_database_of_a_newer_pyro_is_refused(store: Store) -> None:
    connection = sqlite3.connect(store.database.path)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    with pytest.raises(StorageFault, match="newer pyro"):
        Store(store.database.path)


def test_a_file_that_is_no_database_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "pyro.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageFault, match=r"pyro\.db") as caught:
        Store(path)
    assert str(path) in caught.value.remedy


def test_the_state_is_for_its_user_alone(store: Store) -> None:
    assert store.database.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_machine_is_abandoned_when_its_owner_is_another_process_with_the_same_pid(store: Store) -> None:
    stranger = ProcessId(ProcessId.current().pid, 1)
    assert not record().abandoned
    assert MachineRecord.from_json(record().as_json() | {"owner": {"pid": stranger.pid, "start_ticks": 1}}).abandoned


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"state": "stopping"}, "stopped"),
        ({"state": "starting", "keeps_disk": True}, "stopped"),
        ({"state": "starting"}, None),
        ({"state": "executing", "keeps_disk": True}, None),
        ({"state": "deleting", "keeps_disk": True}, None),
        ({"state": "stopping", "owner": GONE}, None),
    ],
    ids=["stop", "restart", "first start", "command", "deletion", "stop of a dead owner's"],
)
def test_a_disk_outlives_the_process_that_stops_the_machine_or_starts_it_again(
    paths: Paths, change: dict[str, Any], state: str | None
) -> None:
    store, settings = Store(paths.database), load({})
    lives = replace(record(), owner=None, running=None, expires_at=time.time() + 600)
    store.insert(replace(lives, actor=GONE, **change))
    private_directory(paths.machine(lives.machine_id).directory)
    paths.machine(lives.machine_id).scratch.write_text("precious")
    removed = sweep(Context(paths, settings, store, Environments(paths, settings)))
    assert [item.state for item in store.all()[0]] == ([state] if state else [])
    assert paths.machine(lives.machine_id).scratch.exists() == (state is not None)
    assert removed == ([], [] if state else [lives.machine_id])


@pytest.mark.parametrize("state", ["stopping", "starting"])
def test_a_sweep_leaves_a_machine_to_the_process_that_changes_it(paths: Paths, state: State) -> None:
    store, settings = Store(paths.database), load({})
    busy = replace(record(), state=state, keeps_disk=True, expires_at=time.time() + 600)
    store.insert(busy)
    assert sweep(Context(paths, settings, store, Environments(paths, settings))) == ([], [])
    assert store.all() == ([busy], [])
