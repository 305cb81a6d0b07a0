"""Images made by hand, and Debian's docker-registry on loopback: what the tests of pulls and pushes share."""

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until

OCI = "application/vnd.oci.image"
PROGRAMS = ("docker-registry", "skopeo", "umoci", "sqfstar")
needs_registry = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)), reason="docker-registry, skopeo, umoci or squashfs-tools is not installed"
)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a layer."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    pax: Mapping[str, str] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **options: Any) -> Member:  # noqa: ANN401 - passed on
    return Member(name, kind=tarfile.DIRTYPE, mode=mode, **options)


def symlink(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.LNKTYPE, target=target)


def layer(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar with these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.uid, info.gid = member.kind, member.mode, member.uid, member.gid
            info.linkname, info.size, info.mtime = member.target, len(member.data), 1
            info.pax_headers = dict(member.pax)
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image: its documents and blobs by digest, and the digest of its manifest."""

    blobs: dict[str, bytes]
    manifest: bytes
    layers: list[str]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def write_layout(self, path: Path, tag: str = "latest") -> Path:
        """As an OCI layout."""
        (path / "blobs/sha256").mkdir(parents=True)
        for digest, data in {**self.blobs, self.digest: self.manifest}.items():
            (path / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(data)
        entry = {
            "mediaType": f"{OCI}.manifest.v1+json",
            "digest": self.digest,
            "size": len(self.manifest),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        return path


def image(*layers: bytes, config: Mapping[str, object] | None = None, compress: bool = True) -> MadeImage:
    """An image of these layers, the lowest first."""
    blobs: dict[str, bytes] = {}
    rows = []
    for data in layers:
        stored = gzip.compress(data, 1, mtime=0) if compress else data
        blobs[digest_of(stored)] = stored
        kind = f"{OCI}.layer.v1.tar{'+gzip' if compress else ''}"
        rows.append({"mediaType": kind, "digest": digest_of(stored), "size": len(stored)})
    document = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in layers]},
        }
    ).encode()
    blobs[digest_of(document)] = document
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": {
                "mediaType": f"{OCI}.config.v1+json",
                "digest": digest_of(document),
                "size": len(document),
            },
            "layers": rows,
        }
    ).encode()
    return MadeImage(blobs, manifest, [str(row["digest"]) for row in rows])


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """A registry that runs, and where it keeps its files."""

    host: str
    root: Path

    def copy_to(self, layout: Path, repository: str, *options: str, tag: str = "latest") -> str:
        """Push a layout's image with skopeo; its name."""
        name = f"{self.host}/{repository}"
        run("skopeo", "copy", "--dest-tls-verify=false", *options, f"oci:{layout}:{tag}", f"docker://{name}")
        return name


def run(*argv: str, **options: Any) -> bytes:  # noqa: ANN401 - passed on
    done = subprocess.run(argv, capture_output=True, check=False, timeout=120, **options)
    assert done.returncode == 0, (argv, done.stderr.decode(errors="replace"))
    return bytes(done.stdout)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def registry(root: Path, http: Sequence[str] = (), extra: Sequence[str] = ()) -> Iterator[RegistryAddress]:
    """Debian's docker-registry on a port of its own; *http* and *extra* are further lines of its configuration."""
    port = free_port()
    root.mkdir(parents=True, exist_ok=True)
    lines = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
        *(f"  {line}" for line in http),
        *extra,
    ]
    (root / "config.yml").write_text("\n".join(lines) + "\n")
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(root / "config.yml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        assert until(lambda: answers(port), Deadline.after(20)), (root / "log").read_text()
        yield RegistryAddress(f"localhost:{port}", root)
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
