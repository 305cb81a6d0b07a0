"""An installation is whole or not there at all, and is checked cheaply at each use."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.environments.conftest import Make, names_in

from pyro_mcp.cli.main import run
from pyro_mcp.environments.installed import Installed
from pyro_mcp.errors import EnvironmentFault, InvalidRequest, NoSpace, ProgramMissing, StorageFault, UnknownEnvironment
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.model import EnvironmentRecord
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import IMAGE, FakeSource, Listener

NAME = "debian:12"
QUIET = Silent()
NEVER = Deadline.never()
DIGEST = hashlib.sha256(IMAGE).hexdigest()


def manifest_of(record: EnvironmentRecord) -> Path:
    return Path(record["install_manifest"])


@pytest.fixture
def installed(environments_of: Make) -> Installed:
    return environments_of(FakeSource()).pull(NAME, progress=QUIET, deadline=NEVER)


def test_nothing_is_installed_at_first_and_asking_makes_nothing(environments_of: Make, paths: Paths) -> None:
    records = environments_of().records()
    assert [(record["name"], record["installed"]) for record in records] == [
        ("debian:12", False),
        ("debian:12-base", False),
        ("debian:12-build", False),
    ]
    assert all(record["source_digest"] is None and "install_manifest" not in record for record in records)
    assert not paths.environments.exists()


def test_a_pull_installs_an_image_under_its_digest(installed: Installed, paths: Paths) -> None:
    assert installed.rootfs == paths.images / f"sha256-{DIGEST}.squashfs"
    assert installed.rootfs.read_bytes() == IMAGE
    assert stat.S_IMODE(installed.rootfs.stat().st_mode) == 0o444
    assert (installed.digest, installed.source, installed.packages) == (DIGEST, "fake", {"bash": "5.2"})
    assert installed.record["installed"]
    assert installed.record["source_digest"] == DIGEST
    assert installed.record["install_dir"] == str(paths.installed / "debian_12-1.0.0")


def test_the_manifest_has_the_keys_of_the_contract(installed: Installed) -> None:
    manifest = json.loads(manifest_of(installed.record).read_text())
    assert {"catalog_version", "name", "version", "source", "source_digest", "installed_at"} <= manifest.keys()
    assert type(manifest["installed_at"]) is int


def test_a_pull_leaves_only_what_is_named(installed: Installed, paths: Paths) -> None:
    assert names_in(paths.installed) == ["debian_12-1.0.0"]
    assert names_in(paths.installed / "debian_12-1.0.0") == ["environment.json"]
    assert names_in(paths.images) == [installed.rootfs.name]


def test_the_phases_come_in_order(environments_of: Make, listener: Listener) -> None:
    environments_of(FakeSource()).pull(NAME, progress=listener, deadline=NEVER)
    assert listener.phases == ["install", "pack", "verify", "ready"]


def test_ensure_says_nothing_and_makes_nothing_when_it_is_installed(
    installed: Installed, environments_of: Make, listener: Listener
) -> None:
    source = FakeSource()
    assert environments_of(source).ensure(NAME, progress=listener, deadline=NEVER) == installed
    assert (source.made, listener.phases, listener.notes) == (0, [], [])


def test_ensure_installs_what_is_missing(environments_of: Make) -> None:
    source = FakeSource()
    assert environments_of(source).ensure(NAME, progress=QUIET, deadline=NEVER).digest == DIGEST
    assert source.made == 1


def test_environments_of_the_same_content_share_the_image(installed: Installed, environments_of: Make) -> None:
    environments = environments_of(FakeSource())
    other = environments.pull("debian:12-base", progress=QUIET, deadline=NEVER)
    assert other.rootfs == installed.rootfs
    again = environments.pull(NAME, progress=QUIET, deadline=NEVER)
    assert (again.rootfs, again.record["installed"]) == (installed.rootfs, True)


def test_a_second_pull_of_a_good_image_makes_nothing(installed: Installed, environments_of: Make) -> None:
    source = FakeSource()
    assert environments_of(source).pull(NAME, progress=QUIET, deadline=NEVER) == installed
    assert source.made == 0


def truncate(image: Path) -> None:
    image.chmod(0o644)
    os.truncate(image, 100)


def overwrite(image: Path) -> None:
    image.chmod(0o644)
    image.write_bytes(bytes(len(IMAGE)))


def flip_without_a_trace(image: Path) -> None:
    status = image.stat()
    overwrite(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("damage", [truncate, overwrite, Path.unlink])
def test_a_damaged_image_is_not_installed_and_comes_back(
    installed: Installed, environments_of: Make, damage: object
) -> None:
    assert callable(damage)
    damage(installed.rootfs)
    source = FakeSource()
    environments = environments_of(source)
    assert not environments.inspect(NAME)["installed"]
    with pytest.raises(EnvironmentFault, match="missing or damaged") as caught:
        environments.verify(NAME)
    assert caught.value.remedy == f"Run `pyro env pull {NAME}`."
    assert environments.ensure(NAME, progress=QUIET, deadline=NEVER).rootfs.read_bytes() == IMAGE
    assert source.made == 1


@pytest.mark.parametrize("damage", [truncate, overwrite, flip_without_a_trace, Path.unlink])
def test_a_damaged_image_is_found_by_a_verification_of_all(
    installed: Installed, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    assert run(["env", "verify"]) == 0
    assert capfd.readouterr().out == f"{NAME} {DIGEST} ok\n"
    damage(installed.rootfs)
    assert run(["env", "verify"]) == 1
    out, err = capfd.readouterr()
    assert (out, f"the image of {NAME} is missing or damaged" in err) == ("", True)


def test_where_nothing_was_installed_there_is_nothing_to_verify(
    paths: Paths, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not paths.environments.exists()
    assert run(["env", "verify"]) == 0
    assert capfd.readouterr().out == "No environment is installed.\n"


def test_damage_that_keeps_size_and_time_is_found_by_verify_and_repaired_by_pull(
    installed: Installed, environments_of: Make
) -> None:
    flip_without_a_trace(installed.rootfs)
    environments = environments_of(FakeSource())
    with pytest.raises(EnvironmentFault, match="damaged"):
        environments.verify(NAME)
    environments.pull(NAME, progress=QUIET, deadline=NEVER)
    assert environments.verify(NAME).digest == DIGEST


def test_an_image_with_another_time_and_the_right_content_is_taken_back(
    installed: Installed, environments_of: Make
) -> None:
    os.utime(installed.rootfs, ns=(1, 1))
    source = FakeSource()
    environments = environments_of(source)
    assert not environments.inspect(NAME)["installed"]
    environments.ensure(NAME, progress=QUIET, deadline=NEVER)
    assert (environments.inspect(NAME)["installed"], source.made) == (True, 0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '"x"', "null", "\xff", '{"name": "debian:12"}'],
)
def test_a_damaged_record_is_not_installed_and_is_replaced(
    installed: Installed, environments_of: Make, text: str
) -> None:
    manifest_of(installed.record).write_text(text, encoding="latin-1")
    environments = environments_of(FakeSource())
    assert not environments.inspect(NAME)["installed"]
    with pytest.raises(EnvironmentFault, match="not installed"):
        environments.verify(NAME)
    assert environments.ensure(NAME, progress=QUIET, deadline=NEVER).record["installed"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", "../../../../etc/passwd"),
        ("image", f"sha256-{'0' * 64}.squashfs"),
        ("source_digest", "../x"),
        ("source_digest", "0" * 64),
        ("name", "debian:12-base"),
        ("version", "0.9.0"),
        ("size", "many"),
        ("size", True),
        ("packages", ["bash"]),
        ("mtime_ns", None),
    ],
)
def test_a_record_that_does_not_fit_is_not_believed(
    installed: Installed, environments_of: Make, key: str, value: object
) -> None:
    manifest = manifest_of(installed.record)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {key: value}))
    assert not environments_of().inspect(NAME)["installed"]


def test_a_failed_source_leaves_nothing(environments_of: Make, paths: Paths) -> None:
    environments = environments_of(FakeSource(error=EnvironmentFault("no network")))
    with pytest.raises(EnvironmentFault, match="no network"):
        environments.pull(NAME, progress=QUIET, deadline=NEVER)
    assert names_in(paths.installed) == names_in(paths.images) == []
    assert not environments.inspect(NAME)["installed"]


def test_a_source_that_fails_is_followed_by_the_next(environments_of: Make, listener: Listener) -> None:
    first = FakeSource(title="registry", error=EnvironmentFault("the registry cannot be reached"))
    second = FakeSource(title="bootstrap")
    environments_of(first, second).pull(NAME, progress=listener, deadline=NEVER)
    assert listener.notes == ["registry failed: the registry cannot be reached; trying bootstrap"]
    assert (first.made, second.made) == (0, 1)


def test_when_all_sources_fail_every_cause_is_told(environments_of: Make) -> None:
    first = FakeSource(title="registry", error=EnvironmentFault("unreachable", details=["line"]))
    second = FakeSource(title="bootstrap", error=ProgramMissing("no mmdebstrap", remedy="Install it."))
    with pytest.raises(EnvironmentFault, match="no source of debian:12 worked") as caught:
        environments_of(first, second).pull(NAME, progress=QUIET, deadline=NEVER)
    assert caught.value.details == ("registry: unreachable", "line", "bootstrap: no mmdebstrap")
    assert caught.value.remedy == "Install it."


def test_a_full_disk_ends_the_installation_without_another_try(environments_of: Make) -> None:
    second = FakeSource()
    environments = environments_of(FakeSource(error=NoSpace("full")), second)
    with pytest.raises(NoSpace):
        environments.pull(NAME, progress=QUIET, deadline=NEVER)
    assert second.made == 0


def test_an_empty_image_is_refused(environments_of: Make) -> None:
    environments = environments_of(FakeSource(b""))
    with pytest.raises(StorageFault, match="empty"):
        environments.pull(NAME, progress=QUIET, deadline=NEVER)
    assert not environments.inspect(NAME)["installed"]


def test_names_never_become_paths(environments_of: Make, paths: Paths) -> None:
    environments = environments_of(FakeSource())
    for name in ("../../etc", "a/b", "debian:13", "debian_12", "."):
        with pytest.raises(InvalidRequest):
            environments.pull(name, progress=QUIET, deadline=NEVER)
    with pytest.raises(UnknownEnvironment, match="did you mean debian:12"):
        environments.inspect("debain:12")
    assert not paths.environments.exists()


def test_the_mode_of_a_cache_somebody_chose_is_left_alone(paths: Paths, environments_of: Make) -> None:
    paths.environments.mkdir(parents=True)
    paths.environments.chmod(0o755)
    environments_of(FakeSource()).pull(NAME, progress=QUIET, deadline=NEVER)
    assert stat.S_IMODE(paths.environments.stat().st_mode) == 0o755
    assert stat.S_IMODE(paths.images.stat().st_mode) == 0o700


@contextlib.contextmanager
def as_a_normal_user() -> Iterator[None]:
    """Root reads everything; for a moment it is nobody."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_an_unreadable_cache_is_a_storage_fault_with_a_remedy(
    installed: Installed, environments_of: Make, paths: Paths
) -> None:
    assert installed.record["installed"]
    paths.installed.chmod(0)
    environments = environments_of()
    try:
        with as_a_normal_user(), pytest.raises(StorageFault) as caught:
            environments.ensure(NAME, progress=QUIET, deadline=NEVER)
    finally:
        paths.installed.chmod(0o700)
    assert str(paths.installed) in str(caught.value)
    assert "permissions" in caught.value.remedy


def test_a_cache_that_is_a_file_is_a_storage_fault(environments_of: Make, paths: Paths) -> None:
    paths.environments.parent.mkdir(parents=True)
    paths.environments.write_text("")
    environments = environments_of(FakeSource())
    for ask in (environments.ensure, environments.pull):
        with pytest.raises(StorageFault, match="environments"):
            ask(NAME, progress=QUIET, deadline=NEVER)


def test_an_installed_environment_cannot_be_changed(installed: Installed) -> None:
    with pytest.raises(AttributeError):
        installed.digest = ""  # type: ignore[misc]
