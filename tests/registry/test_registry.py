"""Debian's docker-registry on loopback, skopeo and umoci as witnesses: pulls and pushes without a guest."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from tests.oci_images import (
    Member,
    RegistryAddress,
    directory,
    hard_link,
    image,
    layer,
    needs_registry,
    registry,
    run,
    symlink,
)

from pyro_mcp.config import load
from pyro_mcp.environments import Environments, Installed
from pyro_mcp.environments.installed import Kernel
from pyro_mcp.environments.oci import media
from pyro_mcp.environments.oci.publish import publish
from pyro_mcp.environments.oci.reference import parse
from pyro_mcp.errors import EXIT_FAILURE, RegistryFault, StorageFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.model import PublishedEnvironment
from pyro_mcp.paths import Paths

pytestmark = needs_registry
QUIET = Silent()
IMAGE = image(
    layer(
        directory("etc"),
        Member("etc/shadow", b"x", mode=0o640, gid=42),
        Member("usr/bin/su", b"su" * 9000, mode=0o4755),
        hard_link("usr/bin/sg", "usr/bin/su"),
        symlink("bin", "usr/bin"),
        directory("tmp", 0o1777),
        directory("opt/gone"),
        Member("opt/gone/x", b"x"),
        directory("var/cache"),
        Member("var/cache/old", b"x"),
    ),
    layer(
        Member("opt/.wh.gone"),
        Member("var/cache/.wh..wh..opq"),
        Member("var/cache/new", b"n", uid=100, gid=101),
        Member("bin/added", b"a", mode=0o755),
        Member("etc/shadow", b"yy", mode=0o600),
    ),
    config={"Env": ["A=b"]},
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryAddress]:
    with registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def environments(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environments:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("OCI_REGISTRY_USERNAME", "OCI_REGISTRY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return Environments(paths, load({}))


def pull(environments: Environments, name: str) -> Installed:
    return environments.pull(name, progress=QUIET, deadline=Deadline.after(60))


def listing(root: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Mode, owner, number of names and content of everything below *root*."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, links, content)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="to unpack with owners takes root")
@pytest.mark.parametrize("options", [[], ["--format=v2s2"], ["--dest-compress-format=zstd"]])
def test_what_skopeo_pushed_comes_out_as_umoci_unpacks_it(
    environments: Environments, server: RegistryAddress, tmp_path: Path, options: list[str]
) -> None:
    layout = IMAGE.write_layout(tmp_path / "layout")
    run("umoci", "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle"))
    name = server.copy_to(layout, f"demo/tree{len(options)}:{len(''.join(options))}", *options)
    found = pull(environments, name)
    run("unsquashfs", "-q", "-n", "-d", str(tmp_path / "ours"), str(found.rootfs))
    theirs = tmp_path / "bundle" / "rootfs"
    assert listing(tmp_path / "ours") == listing(theirs)


def test_an_index_gives_the_image_for_this_platform(
    environments: Environments, server: RegistryAddress, tmp_path: Path
) -> None:
    ours = server.copy_to(IMAGE.write_layout(tmp_path / "a"), "demo/many:one")
    others = [image(layer(Member("x", text))) for text in (b"of another machine", b"of nobody")]
    for number, other in enumerate(others):
        server.copy_to(other.write_layout(tmp_path / f"o{number}"), f"demo/many:other{number}")
    kind = "application/vnd.oci.image.manifest.v1+json"
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": kind, "digest": made.digest, "size": len(made.manifest), "platform": platform}
            for made, platform in (
                (others[0], {"os": "linux", "architecture": "arm64"}),
                (others[1], {"os": "unknown", "architecture": "unknown"}),  # as buildkit marks its attestations
                (IMAGE, {"os": "linux", "architecture": "amd64"}),
            )
        ],
    }
    data = tmp_path / "index"
    data.write_text(json.dumps(index))
    url = f"http://{server.host}/v2/demo/many/manifests/index"
    run("curl", "-sf", "-X", "PUT", "-H", f"Content-Type: {index['mediaType']}", "--data-binary", f"@{data}", url)
    assert pull(environments, f"{server.host}/demo/many:index").digest == pull(environments, ours).digest


def with_password(tmp_path: Path) -> list[str]:
    path = tmp_path / "htpasswd"
    path.write_text(f"tester:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return [f"auth: {{htpasswd: {{realm: tests, path: {path}}}}}"]


def test_a_password_is_asked_for_and_taken_from_wherever_it_is(
    paths: Paths, environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry(tmp_path / "r", extra=with_password(tmp_path)) as server:
        name = server.copy_to(IMAGE.write_layout(tmp_path / "l"), "demo/closed:1", "--dest-creds=tester:secret")
        with pytest.raises(RegistryFault, match="wants a login") as caught:
            pull(environments, name)
        assert "docker login" in caught.value.remedy
        monkeypatch.setenv("OCI_REGISTRY_USERNAME", "tester")
        monkeypatch.setenv("OCI_REGISTRY_PASSWORD", "wrong")
        with pytest.raises(RegistryFault, match="wants a login") as caught:
            pull(environments, name)
        assert "wrong" not in str(caught.value.as_dict())
        monkeypatch.setenv("OCI_REGISTRY_PASSWORD", "secret")
        assert pull(environments, name).digest
        for variable in ("OCI_REGISTRY_USERNAME", "OCI_REGISTRY_PASSWORD"):
            monkeypatch.delenv(variable)
        for write in (docker_auths, docker_helper):
            environments.prune(everything=True)
            write(tmp_path, server.host, monkeypatch)
            assert pull(environments, name).digest


def docker_auths(tmp_path: Path, host: str, _monkeypatch: pytest.MonkeyPatch) -> None:
    """As docker login writes it."""
    (tmp_path / "docker").mkdir()
    auth = {"auths": {host: {"auth": "dGVzdGVyOnNlY3JldA=="}}}
    (tmp_path / "docker/config.json").write_text(json.dumps(auth))


def docker_helper(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper on PATH."""
    program = tmp_path / "docker-credential-tests"
    program.write_text(
        f'#!/bin/sh\n[ "$1 $(cat)" = "get {host}" ] && echo \'{{"Username": "tester", "Secret": "secret"}}\'\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "docker/config.json").write_text(json.dumps({"credHelpers": {host: "tests"}}))


def test_tls_is_verified(environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    run("openssl", *words.split(), "-keyout", str(key), "-out", str(certificate))
    with registry(tmp_path / "r", http=[f"tls: {{certificate: {certificate}, key: {key}}}"]) as server:
        name = server.copy_to(IMAGE.write_layout(tmp_path / "l"), "demo/tls:1")
        with pytest.raises(RegistryFault, match="no valid certificate") as caught:
            pull(environments, name)
        assert "SSL_CERT_FILE" in caught.value.remedy
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert pull(environments, name).digest


@pytest.fixture
def exported(environments: Environments, server: RegistryAddress, tmp_path: Path) -> Path:
    """An environment in our own form, with a kernel that is large enough for several pieces."""
    found = pull(environments, server.copy_to(IMAGE.write_layout(tmp_path / "plain"), "demo/source:1"))
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(os.urandom(1 << 20) * 3)
    environments.export(found.name, tmp_path / "layout", Kernel(kernel, "6.1"), progress=QUIET)
    return tmp_path / "layout"


Publish = Callable[..., PublishedEnvironment]


@pytest.fixture
def push(exported: Path) -> Publish:
    def do(target: str, **settings: str) -> PublishedEnvironment:
        values = load({"PYRO_OCI_UPLOAD_CHUNK_SIZE_BYTES": "262144", **settings})
        return publish(exported, parse(target), values, {}, progress=QUIET, deadline=Deadline.after(60))

    return do


def test_publishing_again_sends_nothing(push: Publish, server: RegistryAddress) -> None:
    first, second = push(f"{server.host}/own/x:1"), push(f"{server.host}/own/x:1")
    assert (first["sent_blobs"], first["manifest_sent"]) == (4, True)
    assert (second["sent_blobs"], second["sent_bytes"], second["manifest_sent"]) == (0, 0, False)
    assert first["digest"] == second["digest"]


def test_make_publishes_with_the_credentials_of_the_environment(
    exported: Path, environments: Environments, tmp_path: Path
) -> None:
    (tmp_path / "layouts").mkdir()
    exported.rename(tmp_path / "layouts/debian_12")
    script = Path(__file__).parents[2] / "scripts/publish_environments.py"
    argv = [sys.executable, str(script), "--layouts", str(tmp_path / "layouts"), "--registry", "", "debian:12"]

    def publish_as(**variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, env={**os.environ, **variables}, capture_output=True, text=True, check=False)

    with registry(tmp_path / "closed", extra=with_password(tmp_path)) as server:
        own = {"PYRO_ENVIRONMENT_REGISTRY": f"{server.host}/official"}
        login = {"OCI_REGISTRY_USERNAME": "tester", "OCI_REGISTRY_PASSWORD": "secret"}
        refused = publish_as(**own)
        assert (refused.returncode, "wants a login" in refused.stderr) == (EXIT_FAILURE, True)
        assert "sent 4 blobs" in publish_as(**own, **login).stdout
        assert "sent 0 blobs" in publish_as(**own, **login).stdout
    nowhere = publish_as()
    assert (nowhere.returncode, "name the registry" in nowhere.stderr) == (2, True)


def test_our_artifact_is_the_fast_path_and_skopeo_copies_it(
    push: Publish, environments: Environments, server: RegistryAddress, tmp_path: Path
) -> None:
    target = f"{server.host}/own/fast:1"
    digest = push(target)["digest"]
    before = environments.inspect(f"{server.host}/demo/source:1")
    found = pull(environments, target)
    assert found.digest == before["source_digest"]
    assert found.config is not None
    assert found.config.env == {"A": "b"}
    copy = ("skopeo", "copy", "--src-tls-verify=false")
    run(*copy, "--preserve-digests", f"docker://{target}", f"dir:{tmp_path / 'same'}")
    assert media.digest_of((tmp_path / "same/manifest.json").read_bytes()) == digest
    run(*copy, f"docker://{target}", f"oci:{tmp_path / 'copy'}:1")  # compresses the layers, which is as good
    again = environments.import_image(tmp_path / "copy", "mine:1", progress=QUIET, deadline=Deadline.after(60))
    assert again.digest == found.digest


def test_a_broken_upload_goes_on_where_the_registry_stands(
    push: Publish, server: RegistryAddress, monkeypatch: pytest.MonkeyPatch, exported: Path
) -> None:
    from pyro_mcp.environments.oci.upload import Uploader

    pieces: list[int] = []
    broken: list[bool] = []
    usual = Uploader._send

    def counting(self: Uploader, method: str, url: str, headers: dict[str, str], body: bytes) -> object:
        if method == "PATCH":
            pieces.append(len(body))
            if len(pieces) == 5 and not broken:
                broken.append(True)
                raise InterruptedError
        return usual(self, method, url, headers, body)

    monkeypatch.setattr(Uploader, "_send", counting)
    with pytest.raises(StorageFault):
        push(f"{server.host}/own/broken:1")
    assert list(exported.glob(".upload-*"))
    taken = sum(pieces[:4])
    pieces.clear()
    done = push(f"{server.host}/own/broken:1")
    assert sum(pieces) == done["sent_bytes"] - taken
    assert not list(exported.glob(".upload-*"))


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "gzip", "rootfs", "layout"])
def test_images_in_files_are_imported(environments: Environments, tmp_path: Path, form: str) -> None:
    layout = IMAGE.write_layout(tmp_path / "l", "v1")
    path = tmp_path / "archive"
    if form == "layout":
        path = Path(f"{layout}:v1")
    elif form == "rootfs":
        path.write_bytes(layer(Member("a", b"x"), Member("manifest.txt", b"no image")))
    else:
        kind = "docker-archive" if form == "gzip" else form
        run("skopeo", "copy", f"oci:{layout}:v1", f"{kind}:{path}:mine:1")
    if form == "gzip":
        subprocess.run(["gzip", "-n", str(path)], check=True)
        path = path.with_suffix(".gz")
    found = environments.import_image(path, "mine:1", progress=QUIET, deadline=Deadline.after(60))
    assert found.source == f"import:{path.name.removesuffix(':v1')}"
    assert [row["name"] for row in environments.records()][-1] == "mine:1"
    expected = {"a"} if form == "rootfs" else {"bin", "etc", "tmp", "opt", "usr", "var"}
    listed = run("unsquashfs", "-l", str(found.rootfs))
    assert {line.split("/")[1] for line in listed.decode().splitlines() if line.count("/") == 1} >= expected
