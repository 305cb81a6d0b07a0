"""Images as environments: pins, prune, the size budget, how their commands run, the way back to the bootstrap."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.oci_images import Member, directory, image, layer, needs_registry
from tests.oci_server import serving

from pyro_mcp.config import load
from pyro_mcp.environments import Environments, Installed
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.environments.oci.config import ImageConfig, read_config
from pyro_mcp.environments.oci.lazy import OciSource
from pyro_mcp.environments.oci.lock import Lock
from pyro_mcp.environments.oci.names import lock_of
from pyro_mcp.errors import EnvironmentFault, ImageRefused, InvalidRequest, RegistryUnreachable, UnknownEnvironment
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import FakeSource, Listener

NOWHERE = {"PYRO_ENVIRONMENT_REGISTRY": "127.0.0.1:1"}
ROOTFS = layer(directory("bin"), Member("bin/sh", b"#!", mode=0o755))
NEVER = Deadline.never()
DAY = 86400


def described(**config: object) -> bytes:
    return json.dumps({"config": config, "rootfs": {"diff_ids": []}}).encode()


def test_what_an_image_says_is_the_default_and_what_the_caller_says_counts() -> None:
    config = read_config(
        described(Env=["A=1", "B=2=3", "bad"], WorkingDir="srv", User="1:2", Entrypoint=["/e"], Cmd=["c", "d"])
    ).config
    assert config == ImageConfig({"A": "1", "B": "2=3"}, "/srv", "1:2", ("/e", "c", "d"))
    spec = config.prepared(CommandSpec("echo $A"))
    assert (spec.argv, spec.env, spec.cwd, spec.user) == (
        ("/bin/sh", "-c", "echo $A"), {"A": "1", "B": "2=3"}, "/srv", "1:2",
    )  # fmt: skip
    spec = config.prepared(CommandSpec("x", env={"A": "9"}, cwd="/", user="root", argv=("a", "b")))
    assert (spec.argv, spec.env["A"], spec.cwd, spec.user) == (("a", "b"), "9", "/", "root")


def test_without_a_shell_the_words_are_the_program_and_its_arguments() -> None:
    config = ImageConfig(shell=False)
    assert config.prepared(CommandSpec("/app 'two words' $HOME")).argv == ("/app", "two words", "$HOME")
    with pytest.raises(InvalidRequest, match="no shell"):
        config.prepared(CommandSpec("'"))


@pytest.mark.parametrize(
    "data",
    [b"[]", b"{}", described(User="a b"), described(Env="A=1"), described(Cmd=[1]), described(WorkingDir="/a\0"),
     b'{"os": "windows", "rootfs": {"diff_ids": []}}', b'{"architecture": "arm64", "rootfs": {"diff_ids": []}}',
     b'{"rootfs": {"diff_ids": ["sha256:x"]}}'],
)  # fmt: skip
def test_a_configuration_that_cannot_be_followed_is_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        read_config(data)


def test_a_configuration_survives_its_record() -> None:
    config = ImageConfig({"A": "b"}, "/x", "me", ("a",), shell=False)
    assert ImageConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    with pytest.raises(ValueError, match="no configuration"):
        ImageConfig.from_dict({"env": {"A": 1}})


def test_a_pin_is_kept_and_a_damaged_lock_is_not_believed(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "a/environments.lock", tmp_path / "locks/guard")
    assert lock.get("x") == ""
    lock.pin("x", "sha256:" + "a" * 64)
    lock.pin("y", "sha256:" + "b" * 64)
    lock.pin("x", "sha256:" + "c" * 64)
    assert lock.pins() == {"x": "sha256:" + "c" * 64, "y": "sha256:" + "b" * 64}
    for text in ("", "{", "[]", '{"version": 9, "pins": {}}', '{"version": 1, "pins": {"x": "latest"}}'):
        lock.path.write_text(text)
        with pytest.raises(EnvironmentFault, match="damaged"):
            lock.get("x")


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs.tar"
    path.write_bytes(ROOTFS)
    return path


def imported(environments: Environments, path: Path, name: str) -> Installed:
    return environments.import_image(path, name, progress=Listener(), deadline=NEVER)


@needs_registry
def test_an_import_is_an_environment_until_it_is_pruned(paths: Paths, tar: Path) -> None:
    environments = Environments(paths, load({}))
    found = imported(environments, tar, "mine:1")
    assert environments.verify("mine:1") == found
    assert environments.ensure("mine:1", progress=Listener(), deadline=NEVER) == found
    assert environments.prune()["count"] == 0
    assert environments.default_command("mine:1", progress=Listener(), deadline=NEVER) == ()
    assert environments.prune(older_than=DAY)["count"] == 0
    record = Path(found.record["install_dir"]) / "environment.json"
    os.utime(record, (time.time() - 2 * DAY,) * 2)
    assert environments.prune(older_than=DAY)["count"] == 1
    with pytest.raises(UnknownEnvironment):
        environments.inspect("mine:1")


@needs_registry
@pytest.mark.parametrize("name", ["debian:12", "docker.io/library/x:1", "../x", "UPPER", ""])
def test_an_import_takes_no_name_of_others(paths: Paths, tar: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        imported(Environments(paths, load({})), tar, name)
    assert not paths.environments.exists()


@pytest.mark.parametrize("path", ["nothing", "empty", "directory", "text"])
def test_what_is_no_image_is_not_imported(paths: Paths, tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    (tmp_path / "text").write_text("no image\n" * 200)
    with pytest.raises((InvalidRequest, ImageRefused)):
        imported(Environments(paths, load({})), tmp_path / path, "mine:1")


@needs_registry
def test_what_was_not_used_for_longest_makes_room_and_imports_stay(paths: Paths, tar: Path) -> None:
    noise = [FakeSource(b"hsqs" + os.urandom(800_000)) for _ in range(3)]
    listener = Listener()
    imported(Environments(paths, load({})), tar, "mine:1")
    settings = load({"PYRO_ENVIRONMENTS_MAX_MIB": "2"})
    for entry, source in zip(CATALOG, noise, strict=True):
        environments = Environments(paths, settings, sources=[source])
        found = environments.pull(entry.name, progress=listener, deadline=NEVER)
        os.utime(Path(found.record["install_dir"]) / "environment.json", (noise.index(source),) * 2)
    left = [record["name"] for record in environments.records() if record["installed"]]
    assert left == [*sorted(entry.name for entry in CATALOG[1:]), "mine:1"]
    assert any("made room" in note for note in listener.notes)


def test_a_registry_out_of_reach_costs_one_line_and_little_time(paths: Paths) -> None:
    settings, listener = load(NOWHERE), Listener()
    oci = OciSource(paths, settings, lock_of(paths, settings))
    environments = Environments(paths, settings, sources=[oci, FakeSource()])
    began = time.monotonic()
    found = environments.pull("debian:12", progress=listener, deadline=NEVER)
    assert time.monotonic() - began < 3
    assert found.source == "fake"
    assert len(listener.notes) == 1
    assert "cannot be reached" in listener.notes[0]
    assert "trying fake source" in listener.notes[0]
    environments.pull("debian:12-base", progress=listener, deadline=NEVER)
    assert "could not be reached" in listener.notes[1]


def test_a_name_that_is_not_resolved_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_mcp.environments.oci import reach

    over = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        over.wait(10)
        return []

    monkeypatch.setattr("socket.getaddrinfo", silent)
    began = time.monotonic()
    try:
        with pytest.raises(RegistryUnreachable, match="not resolved within"):
            reach.require_answer("slow.example", 443, 0.2)
    finally:
        over.set()
    assert time.monotonic() - began < 5


@needs_registry
def test_a_moved_tag_is_followed_only_on_purpose(paths: Paths) -> None:
    first, second = image(layer(Member("a", b"1"))), image(layer(Member("a", b"2")))
    listener = Listener()
    environments = Environments(paths, load({}))
    with serving(first) as server:
        name = f"{server.host}/x/y:1"
        pulled = environments.pull(name, progress=listener, deadline=NEVER)
        assert environments.pins() == {name: first.digest}
        server.image = second
        assert environments.pull(name, progress=listener, deadline=NEVER) == pulled
        moved = environments.pull(name, progress=listener, deadline=NEVER, update=True)
    assert moved.version == second.digest
    assert environments.pins() == {name: second.digest}
    assert any(f"moved from {first.digest} to {second.digest}" in note for note in listener.notes)


@needs_registry
def test_a_lock_from_elsewhere_decides_which_image_counts(paths: Paths, tmp_path: Path) -> None:
    lock = tmp_path / "project.lock"
    settings = load({"PYRO_ENVIRONMENTS_LOCK": str(lock)})
    made = image(layer(Member("a", b"1")))
    with serving(made) as server:
        name = f"{server.host}/x/y:1"
        Environments(paths, settings).pull(name, progress=Listener(), deadline=NEVER)
    value = json.loads(lock.read_text())
    assert value["pins"] == {name: made.digest}
    value["pins"][name] = "sha256:" + "0" * 64
    lock.write_text(json.dumps(value))
    assert not Environments(paths, settings).inspect(name)["installed"]


def test_running_what_is_installed_imports_no_http() -> None:
    code = "import sys, pyro_mcp.sdk; print([m for m in ('urllib3', 'http.client', 'tarfile') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "urllib3" not in done.stdout
