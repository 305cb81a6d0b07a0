"""Atomic files, sparse copies, locks."""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.file_limit import file_limit

from pyro_mcp.errors import Busy, NoSpace, StorageFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import (
    copy_sparse,
    free_bytes,
    private_directory,
    read_json,
    remove_tree,
    storage,
    write_atomically,
    write_json,
)
from pyro_mcp.host.locks import locked, try_lock

MIB = 1 << 20


def test_a_write_replaces_the_whole_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "name with spaces\nand a newline"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_into_a_missing_directory_is_a_storage_fault_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="missing"):
        write_atomically(tmp_path / "missing" / "file", b"")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe"])
def test_json_that_is_no_object_counts_as_absent(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    assert read_json(path) is None


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"b": 1, "a": [2]})
    assert read_json(tmp_path / "file.json") == {"a": [2], "b": 1}
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": [2], "b": 1}


def test_a_full_disk_is_told_apart() -> None:
    with pytest.raises(NoSpace, match="writing"), storage("writing"):
        raise OSError(28, "No space left on device", "/somewhere")


def test_a_file_that_may_not_be_that_large_is_no_full_disk(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(2 * MIB)
    attempts: tuple[Callable[[], None], ...] = (
        lambda: write_atomically(tmp_path / "written", b"x" * (2 * MIB)),
        lambda: copy_sparse(large, tmp_path / "copied"),
    )
    for attempt in attempts:
        with (
            file_limit(MIB),
            pytest.raises(NoSpace, match="a file would be larger than this process may write") as caught,
        ):
            attempt()
        assert "ulimit -f" in caught.value.remedy


def test_a_sparse_file_stays_sparse_when_it_is_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        stream.truncate(512 * MIB)
        stream.seek(100 * MIB)
        stream.write(b"middle")
        stream.seek(511 * MIB)
        stream.write(b"end")
    copy_sparse(source, target)
    assert target.stat().st_size == 512 * MIB
    assert target.stat().st_blocks * 512 < MIB
    with target.open("rb") as stream:
        stream.seek(100 * MIB)
        assert stream.read(6) == b"middle"
        stream.seek(511 * MIB)
        assert stream.read(3) == b"end"


def test_a_copy_to_another_filesystem_is_whole_and_sparse(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        assert Path(other).stat().st_dev != tmp_path.stat().st_dev
        source, target = tmp_path / "source", Path(other) / "target"
        data = bytes(range(256)) * 20_000
        with source.open("wb") as stream:
            stream.truncate(64 * MIB)
            stream.seek(32 * MIB)
            stream.write(data)
        copy_sparse(source, target)
        with target.open("rb") as stream:
            stream.seek(32 * MIB)
            assert stream.read(len(data)) == data
        assert target.stat().st_size == 64 * MIB
        assert target.stat().st_blocks * 512 < 8 * MIB


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "target").write_bytes(b"precious")
    with pytest.raises(StorageFault):
        copy_sparse(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_private_directory_is_closed_to_others(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    place.parent.mkdir()
    place.mkdir(mode=0o755)
    assert private_directory(place).stat().st_mode & 0o777 == 0o700


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "gone")


def test_free_space_of_a_directory_to_be_made_is_that_of_its_parent(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_a_lock_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    os.close(held)
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_waiting_for_a_lock_ends_at_the_deadline_and_tells_once_that_it_waits(tmp_path: Path) -> None:
    told: list[int] = []
    with (
        locked(tmp_path / "lock", Deadline.after(1)),
        pytest.raises(Busy, match="lock"),
        locked(tmp_path / "lock", Deadline.after(0.1), waiting=lambda: told.append(1)),
    ):
        pass
    assert told == [1]


def test_a_lock_whose_file_was_removed_is_not_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    counted: list[int] = []

    def work() -> None:
        for _ in range(50):
            with locked(path, Deadline.after(30)):
                counted.append(1)
                before = len(counted)
                threading.Event().wait(0.0005)
                assert len(counted) == before
                path.unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 200
