"""Empty scratch disks are sparse, reproducible, and of a format that the guest need not finish."""

import threading
from pathlib import Path

import pytest

from pyro_mcp.errors import InvalidRequest, ProgramFailed
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import empty_scratch
from pyro_mcp.runtime.scratch import PARTIAL


def scratch(paths: Paths, mib: int = 64) -> Path:
    return empty_scratch(paths, mib, Deadline.after(30))


def superblock(image: Path) -> dict[str, str]:
    listing = proc.run(["dumpe2fs", "-h", str(image)], Deadline.after(30)).stdout.decode()
    pairs = (line.partition(":")[::2] for line in listing.splitlines())
    return {name: value.strip() for name, value in pairs}


@pytest.mark.parametrize("mib", [64, 4096, 1 << 20])
def test_an_image_has_its_length_and_takes_little_space(paths: Paths, mib: int) -> None:
    status = scratch(paths, mib).stat()
    assert status.st_size == mib << 20
    assert status.st_blocks * 512 < 16 << 20


def test_fsck_finds_nothing_to_say(paths: Paths) -> None:
    proc.run(["e2fsck", "-f", "-n", str(scratch(paths))], Deadline.after(30))


def test_it_is_ext4_without_a_journal_or_reserve(paths: Paths) -> None:
    fields = superblock(scratch(paths))
    features = set(fields["Filesystem features"].split())
    assert {"extent", "ext_attr", "filetype", "flex_bg"} <= features
    assert "has_journal" not in features
    assert fields["Reserved block count"] == "0"


def test_the_guest_has_no_inode_tables_to_zero(paths: Paths) -> None:
    listing = proc.run(["dumpe2fs", str(scratch(paths, 1024))], Deadline.after(30)).stdout.decode()
    groups = [line for line in listing.splitlines() if line.startswith("Group ")]
    assert groups
    assert all("ITABLE_ZEROED" in line for line in groups)


def test_the_same_size_gives_the_same_bytes(paths: Paths) -> None:
    first = scratch(paths)
    data = first.read_bytes()
    first.unlink()
    assert scratch(paths).read_bytes() == data


def test_it_is_made_once(paths: Paths) -> None:
    first = scratch(paths).stat()
    assert scratch(paths).stat().st_ino == first.st_ino


@pytest.mark.parametrize("damage", [b"", b"short", bytes(64 << 20)])
def test_a_damaged_image_is_made_again(paths: Paths, damage: bytes) -> None:
    image = scratch(paths)
    data = image.read_bytes()
    image.write_bytes(damage)
    assert scratch(paths).read_bytes() == data


@pytest.mark.parametrize("mib", [0, -1, 63, (1 << 20) + 1, True])
def test_a_size_outside_the_limits_is_refused(paths: Paths, mib: int) -> None:
    with pytest.raises(InvalidRequest):
        scratch(paths, mib)
    assert not paths.scratch_images.exists()


def test_what_a_killed_maker_left_is_removed(paths: Paths) -> None:
    paths.scratch_images.mkdir(parents=True)
    (paths.scratch_images / f"{PARTIAL}0123456789ab").write_bytes(b"half")
    scratch(paths)
    assert not list(paths.scratch_images.glob(f"{PARTIAL}*"))


def test_a_deadline_that_has_come_leaves_nothing(paths: Paths) -> None:
    with pytest.raises(ProgramFailed):
        empty_scratch(paths, 64, Deadline.after(0))
    assert not list(paths.scratch_images.glob("*.ext4")) + list(paths.scratch_images.glob(f"{PARTIAL}*"))


def test_many_at_once_get_the_same_image(paths: Paths) -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(scratch(paths).stat().st_ino)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
