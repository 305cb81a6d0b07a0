"""Images of a registry in real guests: ours, Alpine-like, without a shell, Python, pushed and copied by skopeo."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guest.conftest import Cli
from tests.oci_images import (
    Member,
    RegistryAddress,
    directory,
    image,
    layer,
    needs_registry,
    registry,
    run,
    symlink,
)

from pyro_mcp.environments.bootstrap import plan
from pyro_mcp.environments.catalog import CatalogEntry, OciName
from pyro_mcp.host import apt
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.agent import AGENT

pytestmark = [
    pytest.mark.guest,
    needs_registry,
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox-static is not installed"),
]
APPLETS = ("sh", "cat", "echo", "env", "id", "ls", "pwd", "stat", "true", "uname")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryAddress]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def wiped(home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of environments that is empty; the runtime is the shared one. No template is made for a single run."""
    cache = tmp_path / "environments"
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(cache))
    monkeypatch.setenv("PYRO_ENVIRONMENT_SOURCES", "oci")
    monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return cache


def busybox() -> bytes:
    """A layer with busybox and links to it, as Alpine has them."""
    program = Path(str(shutil.which("busybox"))).read_bytes()
    return layer(
        directory("bin"),
        Member("bin/busybox", program, mode=0o755),
        *(symlink(f"bin/{name}", "/bin/busybox") for name in APPLETS),
        directory("etc"),
        Member("etc/passwd", b"root:x:0:0::/root:/bin/sh\nguest:x:405:100::/home:/bin/sh\n"),
        Member("etc/group", b"root:x:0:\nusers:x:100:\n"),
        Member("etc/gone", b"x"),
        directory("root", 0o700),
        directory("tmp", 0o1777),
    )


def test_an_official_environment_is_published_wiped_pulled_and_runs(
    cli: Cli, home: Paths, server: RegistryAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = tmp_path / "layout"
    assert cli("env", "export", "debian:12", str(layout)).code == 0
    target = f"{server.host}/official/debian:12"
    first = cli("env", "publish", str(layout), target)
    assert first.code == 0, first.errors
    again = cli("env", "publish", str(layout), target)
    assert "it was there already" in again.text

    copied = tmp_path / "copied"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{target}", f"oci:{copied}:12")
    assert len(list((copied / "blobs/sha256").iterdir())) == 5

    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(tmp_path / "wiped"))
    monkeypatch.setenv("PYRO_ENVIRONMENT_REGISTRY", f"{server.host}/official")
    monkeypatch.setenv("PYRO_ENVIRONMENT_SOURCES", "oci")
    monkeypatch.setenv("PYRO_NO_TEMPLATES", "1")
    pulled = cli("env", "pull", "debian:12")
    assert pulled.code == 0, pulled.errors
    assert f"Source: oci://{server.host}/official/debian@sha256:" in pulled.text
    assert cli("env", "verify").text.startswith("debian:12 ")
    done = cli("run", "debian:12", "--", "git", "--version")
    assert (done.code, done.text.startswith("git version")) == (0, True), done.errors


def test_an_image_like_alpine_runs_as_it_says(cli: Cli, wiped: Path, server: RegistryAddress, tmp_path: Path) -> None:
    upper = layer(Member("etc/.wh.gone"), directory("srv", 0o750, uid=405, gid=100), Member("srv/f", b"hi", uid=405))
    config = {
        "Env": ["PATH=/opt/own:/bin", "GREETING=good day"],
        "WorkingDir": "/srv",
        "User": "guest",
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo $GREETING; pwd; id -u; cat f; [ -e /etc/gone ] || echo gone"],
    }
    name = server.copy_to(image(busybox(), upper, config=config).write_layout(tmp_path / "l"), "demo/alpine:3")
    done = cli("run", name)
    assert done.code == 0, done.errors
    assert done.text == "good day\n/srv\n405\nhigone\n"
    done = cli("run", name, "--user", "root", "--env", "GREETING=hello", "--", 'echo "$GREETING $PATH"; id -u')
    assert done.text == "hello /opt/own:/bin\n0\n"


def test_an_image_without_a_shell_runs_its_program(
    cli: Cli, wiped: Path, server: RegistryAddress, tmp_path: Path
) -> None:
    program = layer(Member("app", AGENT.read_bytes(), mode=0o755))
    made = image(program, config={"Entrypoint": ["/app"], "Cmd": ["tsc"]})
    name = server.copy_to(made.write_layout(tmp_path / "l"), "demo/distroless:1")
    done = cli("run", name)
    assert done.code == 0, done.errors
    assert re.search(r"[0-9]", done.text)
    assert cli("run", name, "--", "/app", "tsc").code == 0
    assert cli("run", name, "--", "/app tsc").code == 0
    missing = cli("run", name, "--", "ls -l")
    assert missing.code == 127


def test_a_python_image_of_debian_packages_runs(cli: Cli, wiped: Path, server: RegistryAddress, tmp_path: Path) -> None:
    sources = apt.sources_for("bookworm")
    entry = CatalogEntry("python:3", "", (), ("python3-minimal",), 0, 0, OciName("", "", ""))
    packages = "".join(f"{line}\n" for line in sources).encode()
    tar = run(*plan(entry, sources), input=packages, env={**os.environ, "SOURCE_DATE_EPOCH": "1"})
    config = {"Env": ["PATH=/usr/bin:/bin", "WHO=you"], "Cmd": ["python3", "-c", "import os; print(os.environ['WHO'])"]}
    layout = image(tar, config=config).write_layout(tmp_path / "l")
    name = server.copy_to(layout, "demo/python:3", "--format=v2s2")  # as docker itself pushes
    done = cli("run", name, "--timeout-seconds", "120")
    assert (done.code, done.text) == (0, "you\n"), done.errors
    done = cli("run", name, "--", "python3", "-c", "print(6 * 7)")
    assert done.text == "42\n"
    record = cli("env", "inspect", name, "--json")
    assert '"installed": true' in record.text


def test_an_imported_archive_runs(cli: Cli, wiped: Path, tmp_path: Path) -> None:
    layout = image(busybox(), config={"Cmd": ["/bin/uname", "-s"]}).write_layout(tmp_path / "l")
    archive = tmp_path / "saved.tar"
    run("skopeo", "copy", f"oci:{layout}:latest", f"docker-archive:{archive}:mine:1")
    done = cli("env", "import", str(archive), "--name", "mine:1")
    assert done.code == 0, done.errors
    assert cli("run", "mine:1").text == "Linux\n"
    assert subprocess.run(["ls", str(wiped)], capture_output=True, check=True).stdout
