"""The files that the 2.3.0 line promises: the cache of environments, task histories, bundles, OCI artifacts."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp import __version__
from pyro_mcp.cli.main import run
from pyro_mcp.config import load
from pyro_mcp.environments import Environments, Installed
from pyro_mcp.environments.catalog import CATALOG
from pyro_mcp.environments.installed import Kernel
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import bundle
from pyro_mcp.testing.environments import FakeSource

QUIET = Silent()
RECORD = "catalog_version name version source source_digest installed_at"
ABOUT = (
    "environment version platform distribution distribution_version description default_packages source_profile"
    " bundle_version component_versions capabilities"
)
LABELS = {
    "io.pyro.environment": "debian:12",
    "io.pyro.environment.version": "1.0.0",
    "io.pyro.source_profile": "debian-git",
    "org.opencontainers.image.title": "debian:12",
    "org.opencontainers.image.version": "1.0.0",
}
TITLE = "org.opencontainers.image.title"
# What each environment promises: its directory, then registry, repository and reference of its image.
CATALOG_ROWS = {
    "debian:12": ("debian_12-1.0.0", "docker.io", "library/buildpack-deps", "bookworm-scm"),
    "debian:12-base": ("debian_12-base-1.0.0", "docker.io", "library/debian", "bookworm-slim"),
    "debian:12-build": ("debian_12-build-1.0.0", "docker.io", "library/buildpack-deps", "bookworm"),
}
DOCTOR = {
    "": "platform runtime_ok issues kvm networking runtime",
    "kvm": "exists readable writable",
    "networking": "enabled_by_default tun_available ip_forward_enabled ip_binary nft_binary iptables_binary",
    "runtime": "bundle_root manifest_path firecracker_bin jailer_bin guest_agent_path artifacts_dir artifacts_present"
    " notice_path bundle_version component_versions capabilities catalog_version cache_dir environments",
    "runtime component_versions": "base_distro firecracker guest_agent jailer kernel",
    "runtime capabilities": "supports_vm_boot supports_guest_exec supports_guest_network reason",
}


@pytest.fixture
def environments(paths: Paths) -> Environments:
    return Environments(paths, load({}), sources=[FakeSource()])


@pytest.fixture
def installed(environments: Environments) -> Installed:
    return environments.pull("debian:12", progress=QUIET, deadline=Deadline.never())


@pytest.fixture
def layout(environments: Environments, installed: Installed, tmp_path: Path) -> Path:
    """An environment as it is published."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"\x7fELF of a kernel")
    environments.export("debian:12", tmp_path / "layout", Kernel(kernel, "6.1.0"), progress=QUIET)
    return tmp_path / "layout"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    """The blob that *descriptor* names, once its size and digest are what it says."""
    path = layout / "blobs" / str(descriptor["digest"]).replace(":", "/")
    data = path.read_bytes()
    assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (descriptor["size"], descriptor["digest"])
    return path


@pytest.mark.parametrize("place", DOCTOR, ids=lambda place: place or "report")
def test_the_report_of_doctor_has_its_keys(place: str, paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--json"])
    part = json.loads(capsys.readouterr().out)
    for key in place.split():
        part = part[key]
    assert set(DOCTOR[place].split()) <= set(part)


def test_doctor_knows_the_bundle_that_is_named(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = {"path": "bin/x", "sha256": "0" * 64}
    (tmp_path / "linux-x86_64").mkdir()
    manifest = {"bundle_version": "9.9.9", "binaries": {"firecracker": program, "jailer": program}}
    (tmp_path / "linux-x86_64" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("PYRO_RUNTIME_BUNDLE_DIR", str(tmp_path))
    run(["doctor", "--json"])
    runtime = json.loads(capsys.readouterr().out)["runtime"]
    assert runtime["bundle_root"] == str(tmp_path)
    assert runtime["manifest_path"] == str(tmp_path / "linux-x86_64" / "manifest.json")
    assert runtime["notice_path"] == str(tmp_path / "NOTICE")
    assert runtime["bundle_version"] == "9.9.9"


@pytest.mark.parametrize("name", CATALOG_ROWS)
def test_an_environment_of_the_catalog_has_its_source_and_its_directory(name: str, environments: Environments) -> None:
    directory, *source = CATALOG_ROWS[name]
    record = environments.inspect(name)
    assert [record["oci_registry"], record["oci_repository"], record["oci_reference"]] == source
    assert Path(record["install_dir"]) == Path(record["cache_dir"]) / "linux-x86_64" / directory
    assert (record["version"], record["compatibility"]) == ("1.0.0", ">=2.0.0,<3.0.0")
    assert (record["distribution"], record["distribution_version"]) == ("debian", "12")
    assert (record["catalog_version"], record["platform"]) == (__version__, "linux-x86_64")


def test_the_cache_is_where_the_variable_says(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.environments == paths.cache / "environments"
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(tmp_path / "other"))
    assert Paths.of_user().environments == tmp_path / "other"


def test_an_installed_environment_has_its_record(installed: Installed, paths: Paths) -> None:
    record = read(paths.environments / "linux-x86_64" / "debian_12-1.0.0" / "environment.json")
    assert set(RECORD.split()) <= set(record)
    assert (record["catalog_version"], record["name"], record["version"]) == (__version__, "debian:12", "1.0.0")
    assert isinstance(record["installed_at"], int)
    assert record["source_digest"] == hashlib.sha256(installed.rootfs.read_bytes()).hexdigest()


@pytest.mark.parametrize("damage", ["no record", "no object", "no image"])
def test_an_environment_without_its_parts_is_not_installed(
    damage: str, environments: Environments, installed: Installed, paths: Paths
) -> None:
    record = paths.environments / "linux-x86_64" / "debian_12-1.0.0" / "environment.json"
    assert environments.inspect("debian:12")["installed"]
    match damage:
        case "no record":
            record.unlink()
        case "no object":
            record.write_text("[]")
        case "no image":
            installed.rootfs.unlink()
    assert not environments.inspect("debian:12")["installed"]


def test_prune_removes_what_is_no_installed_environment(
    environments: Environments, installed: Installed, paths: Paths
) -> None:
    place = paths.environments / "linux-x86_64"
    kept = read(place / "debian_12-1.0.0" / "environment.json")
    for name, record in {
        ".partial-x": None,
        "debian_12-base-1.0.0": None,
        "nosuch_1-1.0.0": {**kept, "name": "nosuch:1"},
        "debian_12-0.9.0": {**kept, "version": "0.9.0"},
        "debian_12-build-1.0.0": {"name": "debian:12-build"},
    }.items():
        (place / name).mkdir()
        if record is not None:
            (place / name / "environment.json").write_text(json.dumps(record))
    pruned = environments.prune()
    assert sorted(pruned["deleted_environment_dirs"]) == sorted(
        [".partial-x", "debian_12-base-1.0.0", "nosuch_1-1.0.0", "debian_12-0.9.0", "debian_12-build-1.0.0"]
    )
    assert pruned["count"] == 5
    assert [path.name for path in place.iterdir()] == ["debian_12-1.0.0"]
    assert installed.rootfs.exists()


def test_a_history_is_in_files_numbered_from_one(no_vmm: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["task", "create", "debian:12", "--allow-host-compat", "--id-only"]) == 0
    task = capsys.readouterr().out.strip()
    assert run(["task", "exec", task, "--json", "--", "echo out; echo err >&2"]) == 0
    directory = no_vmm.state / "tasks" / task / "commands"
    assert (directory / "000001.stdout").read_text() == "out\n"
    assert (directory / "000001.stderr").read_text() == "err\n"
    capsys.readouterr()
    assert run(["task", "logs", task, "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)["entries"][0]
    assert (entry["stdout_file"], entry["stderr_file"]) == (
        str(directory / "000001.stdout"),
        str(directory / "000001.stderr"),
    )
    assert run(["task", "delete", task]) == 0
    assert not directory.parent.exists()


def test_a_bundle_is_read_where_its_parts_are_promised(tmp_path: Path) -> None:
    binaries = {name: {"path": f"bin/{name}", "sha256": "0" * 64} for name in ("firecracker", "jailer")}
    (tmp_path / "linux-x86_64").mkdir()
    (tmp_path / "linux-x86_64" / "manifest.json").write_text(json.dumps({"binaries": binaries}))
    found = bundle.read(tmp_path, "bundle")
    assert found.programs["firecracker"] == tmp_path / "linux-x86_64" / "bin" / "firecracker"
    assert found.notice == tmp_path / "NOTICE"


def test_an_artifact_is_a_layout_with_one_manifest(layout: Path) -> None:
    assert read(layout / "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    (entry,) = read(layout / "index.json")["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["platform"] == {"os": "linux", "architecture": "amd64"}
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "12", TITLE: "debian:12"}


def test_the_manifest_of_an_artifact_names_its_layers(layout: Path) -> None:
    (entry,) = read(layout / "index.json")["manifests"]
    manifest = read(blob(layout, entry))
    assert manifest["schemaVersion"] == 2
    assert manifest["annotations"] == LABELS
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    layers = manifest["layers"]
    assert {layer["mediaType"] for layer in layers} == {"application/vnd.oci.image.layer.v1.tar"}
    assert [layer["annotations"][TITLE] for layer in layers] == ["vmlinux", "rootfs.squashfs", "environment.json"]
    config = read(blob(layout, manifest["config"]))
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["created"]
    assert config["config"]["Labels"] == LABELS
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    assert len(config["history"]) == 1


def test_a_layer_of_an_artifact_is_one_plain_file(layout: Path, installed: Installed) -> None:
    (entry,) = read(layout / "index.json")["manifests"]
    contents = {}
    for layer in read(blob(layout, entry))["layers"]:
        with tarfile.open(blob(layout, layer), "r:") as tar:
            (member,) = tar.getmembers()
            assert (member.name, member.mode) == (layer["annotations"][TITLE], 0o644)
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            file = tar.extractfile(member)
            assert file is not None
            contents[member.name] = file.read()
    assert contents["vmlinux"] == b"\x7fELF of a kernel"
    assert contents["rootfs.squashfs"] == installed.rootfs.read_bytes()
    about = json.loads(contents["environment.json"])
    assert set(ABOUT.split()) <= set(about)
    assert about["capabilities"] == {"vm_boot": True, "guest_exec": True, "guest_network": True}
    assert about["source_profile"] == "debian-git"


def test_every_row_of_the_catalog_is_promised() -> None:
    assert {entry.name for entry in CATALOG} == set(CATALOG_ROWS)
