"""Prune removes what no environment of the catalog needs, and nothing else."""

import json
import os
from pathlib import Path

import pytest
from tests.unit.environments.conftest import Make, names_in

from pyro_mcp.environments.installed import Installed
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import IMAGE, FakeSource

QUIET = Silent()
NEVER = Deadline.never()
NOBODYS = f"sha256-{'a' * 64}.squashfs"


def pull(environments_of: Make, name: str, image: bytes) -> Installed:
    return environments_of(FakeSource(image)).pull(name, progress=QUIET, deadline=NEVER)


@pytest.fixture
def installed(environments_of: Make) -> Installed:
    return pull(environments_of, "debian:12", IMAGE)


def test_an_empty_cache_has_nothing_to_prune_and_stays_absent(environments_of: Make, paths: Paths) -> None:
    assert environments_of().prune() == {"count": 0, "deleted_environment_dirs": []}
    assert not paths.environments.exists()


def test_what_is_installed_stays(installed: Installed, environments_of: Make) -> None:
    other = pull(environments_of, "debian:12-base", IMAGE + b"other")
    environments = environments_of()
    assert environments.prune()["count"] == 0
    assert environments.verify("debian:12") == installed
    assert environments.verify("debian:12-base") == other


def another_version(paths: Paths) -> str:
    return copied(paths, "debian_12-0.9.0", version="0.9.0")


def a_name_that_is_not_in_the_catalog(paths: Paths) -> str:
    return copied(paths, "debian_11-1.0.0", name="debian:11")


def a_good_record_in_the_wrong_place(paths: Paths) -> str:
    return copied(paths, "debian_12-base-1.0.0")


def copied(paths: Paths, directory: str, **changes: str) -> str:
    record = json.loads((paths.installed / "debian_12-1.0.0/environment.json").read_text())
    (paths.installed / directory).mkdir()
    (paths.installed / directory / "environment.json").write_text(json.dumps(record | changes))
    return directory


def a_directory_without_a_record(paths: Paths) -> str:
    (paths.installed / "debian_12-build-1.0.0/deep").mkdir(parents=True)
    return "debian_12-build-1.0.0"


def a_damaged_record(paths: Paths) -> str:
    (paths.installed / "debian_12-base-1.0.0").mkdir()
    (paths.installed / "debian_12-base-1.0.0/environment.json").write_text("{")
    return "debian_12-base-1.0.0"


def a_left_over_installation(paths: Paths) -> str:
    (paths.installed / ".partial-debian_12-0123456789ab/source-0").mkdir(parents=True)
    return ".partial-debian_12-0123456789ab"


def a_left_over_of_another_make(paths: Paths) -> str:
    (paths.installed / ".partial-x").mkdir()
    return ".partial-x"


def a_left_over_that_is_a_link(paths: Paths) -> str:
    (paths.installed / ".partial-y").symlink_to(paths.installed / "debian_12-1.0.0")
    return ".partial-y"


def an_image_nobody_names(paths: Paths) -> str:
    (paths.images / NOBODYS).write_bytes(b"hsqs")
    return f"images/{NOBODYS}"


@pytest.mark.parametrize(
    "leave",
    [
        another_version,
        a_name_that_is_not_in_the_catalog,
        a_good_record_in_the_wrong_place,
        a_directory_without_a_record,
        a_damaged_record,
        a_left_over_installation,
        a_left_over_of_another_make,
        a_left_over_that_is_a_link,
        an_image_nobody_names,
    ],
)
def test_prune_removes(installed: Installed, environments_of: Make, paths: Paths, leave: object) -> None:
    assert callable(leave)
    left = leave(paths)
    environments = environments_of()
    assert environments.prune() == {"count": 1, "deleted_environment_dirs": [left]}
    assert environments.verify("debian:12") == installed
    assert names_in(paths.installed) == ["debian_12-1.0.0"]
    assert names_in(paths.images) == [installed.rootfs.name]


def test_a_directory_goes_with_its_image_and_counts_once(
    installed: Installed, environments_of: Make, paths: Paths
) -> None:
    installed.rootfs.chmod(0o644)
    os.truncate(installed.rootfs, 10)
    assert environments_of().prune() == {"count": 1, "deleted_environment_dirs": ["debian_12-1.0.0"]}
    assert names_in(paths.images) == []


def test_a_machine_keeps_the_image_it_has_open(installed: Installed, environments_of: Make, paths: Paths) -> None:
    (paths.installed / "debian_12-1.0.0/environment.json").unlink()
    with installed.rootfs.open("rb") as opened:
        environments_of().prune()
        assert not installed.rootfs.exists()
        assert opened.read() == IMAGE


def test_prune_follows_no_link_and_keeps_foreign_files(
    installed: Installed, environments_of: Make, paths: Paths, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (paths.installed / "link").symlink_to(outside)
    (paths.installed / "README").write_text("mine")
    (paths.images / "notes.txt").write_text("mine")
    assert environments_of().prune()["count"] == 0
    assert (outside / "precious").exists()
    assert (paths.images / "notes.txt").exists()
    assert installed.rootfs.exists()
