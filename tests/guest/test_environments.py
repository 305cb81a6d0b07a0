"""A real environment, bootstrapped from a Debian archive: nothing of the host is in it."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyro_mcp
from pyro_mcp.config import load
from pyro_mcp.environments import Environments, Installed
from pyro_mcp.errors import EnvironmentFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import Listener

NAME = "debian:12-base"
PULL_SECONDS = 280.0
PROGRAMS = ("mmdebstrap", "sqfstar", "unsquashfs")

# Pulls, and says so when the bootstrap is in the middle of its work.
PULLER = """
from pyro_mcp.config import load
from pyro_mcp.environments import Environments
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths

class Telling(Silent):
    def phase(self, name, **fields):
        print(name, flush=True)

Environments(Paths.of_user(), load()).pull("debian:12-base", progress=Telling(), deadline=Deadline.never())
"""

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="mmdebstrap or squashfs-tools is not installed"),
    pytest.mark.skipif(
        os.geteuid() != 0 and shutil.which("newuidmap") is None, reason="a normal user needs the package uidmap"
    ),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    directory = tmp_path_factory.mktemp("environments")
    return Paths(directory / "state", directory / "cache", directory / "images")


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def pulled(root: Paths, listener: Listener) -> Installed:
    environments = Environments(root, load())
    return environments.pull(NAME, progress=listener, deadline=Deadline.after(PULL_SECONDS))


@pytest.fixture(scope="module")
def listing(pulled: Installed) -> dict[str, tuple[str, str]]:
    """Mode and owner of every path in the image."""
    lines = unsquashfs("-lln", str(pulled.rootfs)).decode().splitlines()
    found = (re.fullmatch(r"(\S{10}) (\S+) .* \d\d:\d\d squashfs-root(\S*).*", line) for line in lines)
    return {match[3] or "/": (match[1], match[2]) for match in found if match is not None}


def unsquashfs(*words: str) -> bytes:
    return subprocess.run(["unsquashfs", *words], check=True, capture_output=True).stdout


def content(pulled: Installed, path: str) -> str:
    return unsquashfs("-cat", str(pulled.rootfs), path).decode()


def test_the_pull_tells_its_stages_and_its_bytes(pulled: Installed, listener: Listener) -> None:
    stages = ["install", "update", "download", "bootstrap", "pack", "verify", "ready"]
    assert listener.phases == stages
    assert listener.done_bytes[-1] > pulled.rootfs.stat().st_size


def test_the_root_directory_belongs_to_root_and_is_closed(listing: dict[str, tuple[str, str]]) -> None:
    assert listing["/"] == ("drwxr-xr-x", "0/0")
    assert listing["/tmp"] == ("drwxrwxrwt", "0/0")
    assert listing["/usr/bin/passwd"] == ("-rwsr-xr-x", "0/0")


def test_the_host_has_left_no_trace(pulled: Installed, listing: dict[str, tuple[str, str]]) -> None:
    assert content(pulled, "etc/hostname") == "pyro\n"
    assert content(pulled, "etc/machine-id") == content(pulled, "etc/resolv.conf") == ""
    assert socket.gethostname() not in content(pulled, "etc/hosts").split()
    assert not [path for path in listing if path.startswith("/etc/ssh/ssh_host_")]
    for path in ("/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/resolv.conf", "/etc/apt/sources.list"):
        assert listing[path] == ("-rw-r--r--", "0/0")


def test_no_package_lists_and_no_package_files_are_kept(listing: dict[str, tuple[str, str]]) -> None:
    assert not [path for path in listing if path.endswith((".deb", "_Packages", "_InRelease", "99mmdebstrap"))]


def test_apt_in_the_guest_has_sources_it_can_use(pulled: Installed) -> None:
    lines = content(pulled, "etc/apt/sources.list").splitlines()
    assert lines
    assert all(re.fullmatch(r"deb [a-z+]+:/\S+ bookworm\S* main", line) for line in lines)
    assert not [line for line in lines if "@" in line]


def test_the_promised_packages_are_there(pulled: Installed, listing: dict[str, tuple[str, str]]) -> None:
    assert {"bash", "coreutils", "ca-certificates"} <= pulled.packages.keys()
    assert {"/usr/bin/bash", "/usr/bin/ls", "/etc/ssl/certs/ca-certificates.crt"} <= listing.keys()


def test_only_the_image_and_its_record_remain(pulled: Installed, root: Paths) -> None:
    kept = sorted(str(path.relative_to(root.environments)) for path in root.environments.rglob("*") if path.is_file())
    assert kept == [
        f"images/{pulled.rootfs.name}",
        "linux-x86_64/debian_12-base-1.0.0/environment.json",
        "locks/debian_12-base.lock",
        "locks/images.lock",
    ]


def test_an_archive_that_cannot_be_reached_is_named_as_the_cause(tmp_path: Path) -> None:
    nowhere = load(
        {"PYRO_DEBIAN_MIRROR": "http://user:secret@127.0.0.1:1/debian", "PYRO_ENVIRONMENT_SOURCES": "bootstrap"}
    )
    environments = Environments(Paths(tmp_path / "state", tmp_path / "cache", tmp_path / "images"), nowhere)
    with pytest.raises(EnvironmentFault, match="the Debian archive cannot be reached") as caught:
        environments.pull(NAME, progress=Listener(), deadline=Deadline.after(PULL_SECONDS))
    assert "PYRO_DEBIAN_MIRROR" in caught.value.remedy
    assert "secret" not in str(caught.value.as_dict())
    assert list((tmp_path / "images/linux-x86_64").iterdir()) == []


def traces_of(directory: Path) -> Iterator[str]:
    """Mounts below *directory*, and command lines that name it."""
    yield from (line for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if bytes(directory) in words:
            yield words.decode(errors="replace")


@pytest.mark.skipif(
    os.geteuid() != 0, reason="a normal user's bootstrap notices only when it hands over its tar stream"
)
def test_a_killed_pull_leaves_no_process_and_no_mount(paths: Paths) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(pyro_mcp.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", PULLER], stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            assert "bootstrap\n" in iter(process.stdout.readline, "")
        finally:
            process.kill()
    assert until(lambda: not list(traces_of(paths.environments)), Deadline.after(10)), list(
        traces_of(paths.environments)
    )
    assert not Environments(paths, load()).inspect(NAME)["installed"]
    assert Environments(paths, load()).prune()["count"] == 1
    assert list(paths.installed.iterdir()) == []
