"""Templates on disk and their keys: what counts as the same, what is verified, what is removed."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pyro_mcp.config import load
from pyro_mcp.drivers.base import Capabilities, Driver, Launch, Started
from pyro_mcp.engine.records import NO_ISOLATION, MachineRecord
from pyro_mcp.engine.store import Store
from pyro_mcp.engine.template_store import AGAIN_SECONDS, AGAIN_SECONDS_MOST, TemplateStore
from pyro_mcp.engine.templates import Kind, Templates
from pyro_mcp.errors import BootFailed, CapacityReached, MachineFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths, TemplatePaths

KEY = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
LAYOUT = "layout"


class StubDriver:
    """All that a key asks of a driver."""

    capabilities = Capabilities("stub", "guest_serial", 1, snapshots=True)

    def layout(self, _launch: Launch) -> str:
        return LAYOUT

    def start(self, _launch: Launch, _deadline: Deadline) -> Started:
        raise MachineFault("it got as far as a start")


def kind(paths: Paths) -> Kind:
    me = ProcessId.current()
    record = MachineRecord(
        machine_id="0123456789ab",
        state="created",
        environment="debian:12",
        environment_version="1",
        vcpu_count=1,
        mem_mib=1024,
        disk_mib=4096,
        ttl_seconds=600,
        created_at=1.0,
        expires_at=601.0,
        allow_host_compat=False,
        driver="stub",
        execution_mode="guest_serial",
        isolation=NO_ISOLATION,
        owner=me,
        actor=me,
    )
    launch = Launch(
        machine_id=record.machine_id,
        vcpu_count=1,
        mem_mib=1024,
        kernel=Path("/k"),
        initramfs=Path("/i"),
        rootfs=Path("/r"),
        paths=paths.machine(record.machine_id),
        agent=Path("/a"),
        owner=me,
        deadline_unix_ms=0,
    )
    return Kind(record, launch, "e" * 64, "r" * 64, cast("Driver", StubDriver()))


def make(store: TemplateStore, key: str = KEY, *, size: int = 8192) -> None:
    with store.making(key) as work:
        assert work is not None
        fill(work, size)
        store.publish(key, work, LAYOUT, {"environment": "debian:12"})


def fill(work: TemplatePaths, size: int = 8192) -> None:
    for path in (work.state, work.memory, work.scratch):
        path.write_bytes(b"x" * size)


def failed_long_ago(paths: Paths, seconds: float) -> None:
    old = time.time() - seconds
    os.utime(paths.template_failure(KEY), (old, old))


def names(paths: Paths) -> set[str]:
    return {path.name for path in paths.templates.iterdir()}


@pytest.fixture
def store(paths: Paths) -> TemplateStore:
    return TemplateStore(paths)


def test_the_key_is_the_same_for_two_machines_of_one_kind(paths: Paths) -> None:
    one = kind(paths)
    other = one._replace(record=replace(one.record, machine_id="ffffffffffff", created_at=9.0))
    assert one.key(LAYOUT) == other.key(LAYOUT)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one._replace(environment_digest="d" * 64),
        lambda one: one._replace(runtime_digest="d" * 64),  # another kernel, module set or agent
        lambda one: one._replace(launch=one.launch._replace(vcpu_count=2)),
        lambda one: one._replace(launch=one.launch._replace(mem_mib=512)),
        lambda one: one._replace(record=replace(one.record, disk_mib=512)),
    ],
)
def test_the_key_changes_with_all_that_a_snapshot_depends_on(paths: Paths, change: Callable[[Kind], Kind]) -> None:
    assert change(kind(paths)).key(LAYOUT) != kind(paths).key(LAYOUT)


def test_the_key_changes_with_the_layout(paths: Paths) -> None:
    assert kind(paths).key("another") != kind(paths).key(LAYOUT)


def test_a_published_template_is_found_and_its_files_are_read_only(paths: Paths, store: TemplateStore) -> None:
    make(store)
    found = store.find(KEY, LAYOUT)
    assert found is not None
    assert found.snapshot.memory == paths.template(KEY).memory
    assert {path.stat().st_mode & 0o777 for path in (found.snapshot.memory, found.snapshot.state)} == {0o444}
    assert paths.templates.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["state.bin", "memory.bin", "scratch.ext4"])
def test_a_file_that_was_written_to_takes_the_template_with_it(paths: Paths, store: TemplateStore, name: str) -> None:
    make(store)
    path = paths.template(KEY).directory / name
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.write(b"y")
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as one would who wants to hide it
    assert store.find(KEY, LAYOUT) is None
    assert not paths.template(KEY).directory.exists()


@pytest.mark.parametrize("name", ["state.bin", "memory.bin", "scratch.ext4", "template.json"])
def test_a_missing_file_takes_the_template_with_it(paths: Paths, store: TemplateStore, name: str) -> None:
    make(store)
    (paths.template(KEY).directory / name).unlink()
    assert store.find(KEY, LAYOUT) is None
    assert names(paths) == {f"{KEY}.lock"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"generation": 99}', '{"generation": 1, "layout": 7}'])
def test_a_damaged_record_takes_the_template_with_it(paths: Paths, store: TemplateStore, text: str) -> None:
    make(store)
    paths.template(KEY).record.write_text(text)
    assert store.records()[0]["intact"] is False
    assert store.find(KEY, LAYOUT) is None


def test_another_layout_does_not_fit(store: TemplateStore) -> None:
    make(store)
    assert store.find(KEY, "another") is None


def test_only_one_makes_a_template_and_the_other_is_told_at_once(paths: Paths, store: TemplateStore) -> None:
    with store.making(KEY) as first, TemplateStore(paths).making(KEY) as second:
        assert first is not None
        assert second is None


def test_what_was_not_published_is_gone(paths: Paths, store: TemplateStore) -> None:
    with store.making(KEY) as work:
        assert work is not None
        fill(work)
    store.sweep()
    assert names(paths) == set()


def test_a_killed_makers_directory_is_swept_and_a_living_ones_is_not(paths: Paths, store: TemplateStore) -> None:
    make(store, OTHER)
    left = paths.templates / f".partial-{KEY}-000000000000"
    left.mkdir()
    lock = try_lock(paths.template_lock(KEY))
    assert lock is not None
    store.sweep()
    assert left.exists()
    os.close(lock)
    store.sweep()
    assert names(paths) == {OTHER, f"{OTHER}.lock"}


def test_the_next_maker_of_the_same_template_sweeps_too(paths: Paths, store: TemplateStore) -> None:
    make(store)
    (paths.templates / f".partial-{KEY}-000000000000").mkdir()
    with store.making(KEY) as work:
        assert work is not None
        assert [path for path in paths.templates.glob(".partial-*") if path != work.directory] == []


def test_the_templates_used_last_are_kept_within_the_bound(paths: Paths, store: TemplateStore) -> None:
    keys = [f"{number:032x}" for number in range(4)]
    for age, key in enumerate(keys):
        make(store, key, size=400 << 10)  # 2 MiB each, rounded up
        os.utime(paths.template(key).used, (time.time() - age, time.time() - age))
    assert store.bound(4) == keys[2:]
    assert {record["key"] for record in store.records()} == set(keys[:2])


def test_a_use_makes_a_template_the_last_used(paths: Paths, store: TemplateStore) -> None:
    for key in (KEY, OTHER):
        make(store, key)
        os.utime(paths.template(key).used, (1, 1))
    assert store.find(OTHER, LAYOUT) is not None
    assert store.records()[0]["key"] == OTHER


def test_the_template_just_made_is_kept_even_when_it_alone_is_too_large(store: TemplateStore) -> None:
    make(store, KEY, size=400 << 10)
    assert store.bound(1, keep=KEY) == []


def test_a_failure_is_remembered_for_a_while(paths: Paths, store: TemplateStore) -> None:
    make(store, OTHER)
    assert store.barred(KEY) == ""
    store.failed(KEY, "make", "no reason")
    assert store.barred(KEY) == "no reason"
    failed_long_ago(paths, AGAIN_SECONDS + 1)
    assert store.barred(KEY) == ""


def test_each_further_failure_is_remembered_for_longer(paths: Paths, store: TemplateStore) -> None:
    make(store, OTHER)
    for _ in range(2):
        store.failed(KEY, "make", "no reason")
    failed_long_ago(paths, AGAIN_SECONDS + 1)
    assert store.barred(KEY) == "no reason"
    for _ in range(100):
        store.failed(KEY, "make", "no reason")
    failed_long_ago(paths, AGAIN_SECONDS_MOST + 1)
    assert store.barred(KEY) == ""


def test_a_template_that_does_not_work_is_made_again_once_and_then_not_for_a_while(store: TemplateStore) -> None:
    make(store)
    store.failed(KEY, "resume", "it hangs")
    assert store.barred(KEY) == ""
    make(store)  # that it can be made says nothing
    store.failed(KEY, "resume", "it hangs")
    assert store.barred(KEY) == "it hangs"


def test_a_machine_that_goes_on_from_a_template_ends_the_memory_of_failures(store: TemplateStore) -> None:
    make(store)
    store.failed(KEY, "resume", "it hangs")
    store.proved(KEY)
    store.failed(KEY, "resume", "it hangs")
    assert store.barred(KEY) == ""


@pytest.mark.parametrize("text", ["", "[]", '{"times": -3}', '{"times": 1e99}', '{"times": 99999999999}', "\0"])
def test_a_damaged_record_of_a_failure_keeps_nobody_from_trying(paths: Paths, store: TemplateStore, text: str) -> None:
    make(store, OTHER)
    paths.template_failure(KEY).write_text(text)
    assert store.barred(KEY) == ""


def test_prune_removes_everything_but_what_is_being_made(paths: Paths, store: TemplateStore) -> None:
    make(store)
    store.failed(OTHER, "make", "x")
    with TemplateStore(paths).making("a" * 32) as work:
        assert work is not None
        assert [record["key"] for record in store.prune()] == [KEY]
        assert names(paths) == {work.directory.name, f"{'a' * 32}.lock"}


def test_records_of_an_absent_directory_are_none(store: TemplateStore) -> None:
    assert store.records() == []
    assert store.find(KEY, LAYOUT) is None
    store.sweep()


def test_a_machine_makes_room_for_its_template_and_no_other_machine_does(paths: Paths) -> None:
    records, one = Store(paths.database), kind(paths)
    settings = load({"PYRO_MAX_ACTIVE_VMS": "1", "PYRO_MIN_FREE_MIB": "0"})
    templates = Templates(paths, settings, records, records.remove)
    records.insert(one.record)
    with pytest.raises(BootFailed, match="as far as a start"):
        templates.build(one, Silent())
    another = one._replace(record=replace(one.record, machine_id="ffffffffffff"), environment_digest="d" * 64)
    with pytest.raises(CapacityReached):
        templates.build(another, Silent())
    assert templates.store.barred(another.key(LAYOUT)) == ""  # it may be made as soon as there is room
