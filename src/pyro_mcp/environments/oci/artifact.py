"""An installed environment as an OCI layout: kernel, root filesystem, description, a layer each.

The same environment gives the same bytes, so that publishing it again sends nothing.
"""

import hashlib
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_mcp import __version__
from pyro_mcp.environments.installed import Installed, Kernel
from pyro_mcp.environments.oci import media, tar_writer
from pyro_mcp.environments.oci.image import ABOUT_TITLE, KERNEL_TITLE, NAME_LABEL, ROOTFS_TITLE, TITLE
from pyro_mcp.environments.oci.layout import INDEX, OCI_LAYOUT, REF_NAME
from pyro_mcp.environments.oci.tar_entry import FILE, Entry
from pyro_mcp.errors import InvalidRequest
from pyro_mcp.host.files import remove_tree, storage
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import new_token
from pyro_mcp.paths import PLATFORM

CHUNK = 1 << 20
EPOCH = "1970-01-01T00:00:00Z"
FILE_MODE = 0o644
BLOBS = "blobs/sha256"
PROFILES = {"debian:12": "debian-git", "debian:12-base": "debian-base", "debian:12-build": "debian-build"}


def export(installed: Installed, kernel: Kernel, target: Path, progress: Progress) -> str:
    """Write *installed* to *target*: a layout directory, or an archive if it ends in ``.tar``; the manifest's digest.

    Raises InvalidRequest when something is there already.
    """
    if target.exists():
        raise InvalidRequest(f"{target} is there already", remedy="Remove it, or export to another place.")
    progress.phase("export", environment=installed.name)
    work = target.with_name(f".{target.name}.partial-{new_token()}")
    try:
        with storage(f"writing {target}"):
            (work / BLOBS).mkdir(parents=True)
            digest = _Layout(work, progress).write(installed, kernel)
            if target.suffix == ".tar":
                archive = work / "archive.tar"
                _archive(work, archive)
                archive.replace(target)
            else:
                work.rename(target)
    finally:
        remove_tree(work)
    return digest


class _Layout:
    def __init__(self, root: Path, progress: Progress) -> None:
        self._root = root
        self._progress = progress
        self._done = 0

    def write(self, installed: Installed, kernel: Kernel) -> str:
        about = json.dumps(_about(installed, kernel), indent=2, sort_keys=True).encode()
        layers = [
            self._layer(KERNEL_TITLE, kernel.path.stat().st_size, _content(kernel.path)),
            self._layer(ROOTFS_TITLE, installed.rootfs.stat().st_size, _content(installed.rootfs)),
            self._layer(ABOUT_TITLE, len(about), iter([about])),
        ]
        labels = _labels(installed)
        config = self._document(media.OCI_CONFIG, _config(labels, [layer["digest"] for layer in layers]))
        manifest = self._document(
            media.OCI_MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": media.OCI_MANIFEST,
                "config": config,
                "layers": layers,
                "annotations": labels,
            },
        )
        entry = {
            **manifest,
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {REF_NAME: tag_of(installed.name), TITLE: installed.name},
        }
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry]}
        (self._root / INDEX).write_bytes(_json(index))
        (self._root / OCI_LAYOUT).write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
        return str(manifest["digest"])

    def _layer(self, title: str, size: int, content: Iterator[bytes]) -> dict[str, Any]:
        """A tar with one file, as a blob."""
        partial = self._root / f"{title}.partial"
        sha, total = hashlib.sha256(), 0
        head = tar_writer.header(Entry(title.encode(), FILE, FILE_MODE, 0, 0, 0, size))
        with partial.open("xb") as file:
            for piece in itertools.chain([head], content, [tar_writer.padding(size), tar_writer.END]):
                file.write(piece)
                sha.update(piece)
                total += len(piece)
                self._progress.advance(self._done + total)
        self._done += total
        partial.replace(self._root / BLOBS / sha.hexdigest())
        return {
            "mediaType": media.OCI_LAYER,
            "digest": f"sha256:{sha.hexdigest()}",
            "size": total,
            "annotations": {TITLE: title},
        }

    def _document(self, media_type: str, value: dict[str, Any]) -> dict[str, Any]:
        data = _json(value)
        digest = media.digest_of(data)
        (self._root / BLOBS / digest.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


def tag_of(name: str) -> str:
    """The tag in the name of an environment."""
    _, colon, tag = name.rpartition("/")[2].partition(":")
    return tag if colon and not tag.startswith("sha256") else "latest"


def _labels(installed: Installed) -> dict[str, str]:
    labels = {
        NAME_LABEL: installed.name,
        f"{NAME_LABEL}.version": installed.version,
        TITLE: installed.name,
        "org.opencontainers.image.version": installed.version,
    }
    if installed.name in PROFILES:
        labels["io.pyro.source_profile"] = PROFILES[installed.name]
    return labels


def _about(installed: Installed, kernel: Kernel) -> dict[str, Any]:
    """The description that goes with an environment."""
    record = installed.record
    return {
        "environment": installed.name,
        "version": installed.version,
        "platform": PLATFORM,
        "distribution": record["distribution"],
        "distribution_version": record["distribution_version"],
        "description": record["description"],
        "default_packages": record["default_packages"],
        "source_profile": PROFILES.get(installed.name, ""),
        "bundle_version": __version__,
        "component_versions": {"kernel": kernel.release, "guest_agent": __version__},
        "capabilities": {"vm_boot": True, "guest_exec": True, "guest_network": True},
        "source": installed.source,
        "rootfs_sha256": installed.digest,
        "packages": installed.packages,
        "config": None if installed.config is None else installed.config.as_dict(),
    }


def _config(labels: dict[str, str], diff_ids: list[str]) -> dict[str, Any]:
    return {
        "created": EPOCH,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": EPOCH, "created_by": "pyro env export"}],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _archive(layout: Path, archive: Path) -> None:
    """All files of a layout in one tar, always in the same order."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(layout.rglob("*")):
            if path == archive or not path.is_file():
                continue
            member = tarfile.TarInfo(os.fspath(path.relative_to(layout)))
            member.size, member.mode = path.stat().st_size, FILE_MODE
            with path.open("rb") as file:
                tar.addfile(member, file)
