"""From an image whose blobs are at hand to a squashfs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyro_mcp.environments.oci.config import Described, ImageConfig
from pyro_mcp.environments.oci.flatten import Flattened, Layer
from pyro_mcp.environments.oci.layers import Blob, Budget, Limits, unpacked
from pyro_mcp.environments.oci.media import Manifest
from pyro_mcp.environments.oci.packages import packages_of
from pyro_mcp.environments.oci.squash import pack
from pyro_mcp.environments.oci.tar_entry import FILE
from pyro_mcp.environments.oci.tar_reader import TarReader
from pyro_mcp.environments.source import MIB, Made, require_space
from pyro_mcp.errors import ImageRefused
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress

# Our own artifact: a layer per file, so that any registry and any tool carries it.
KERNEL_TITLE, ROOTFS_TITLE, ABOUT_TITLE = "vmlinux", "rootfs.squashfs", "environment.json"
ARTIFACT_TITLES = (KERNEL_TITLE, ROOTFS_TITLE, ABOUT_TITLE)
NAME_LABEL = "io.pyro.environment"
TITLE = "org.opencontainers.image.title"
SQUASHFS_MAGIC = b"hsqs"
ABOUT_BYTES_MOST = 16 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image. *source* and *digest* are what is put on record of it; *artifact*: it is one of ours."""

    source: str
    digest: str
    described: Described
    layers: tuple[Layer, ...]
    artifact: bool = False


def is_artifact(manifest: Manifest, described: Described) -> bool:
    """Whether this is an environment that pyro published: its root filesystem comes ready-made.

    A tool that copies it and compresses the layers drops their titles; the label stays.
    """
    titles = tuple(layer.annotations.get(TITLE, "") for layer in manifest.layers)
    labelled = NAME_LABEL in described.labels or NAME_LABEL in manifest.annotations
    return labelled and titles in (ARTIFACT_TITLES, ("",) * len(ARTIFACT_TITLES))


def layers_of(blobs: Sequence[Blob], diff_ids: Sequence[str]) -> tuple[Layer, ...]:
    """Blobs with the digest each has once it is unpacked."""
    if len(diff_ids) != len(blobs):
        raise ImageRefused(f"the image has {len(blobs)} layers, and its configuration names {len(diff_ids)}")
    return tuple(Layer(blob, diff_id) for blob, diff_id in zip(blobs, diff_ids, strict=True))


def make(image: Image, name: str, work: Path, limits: Limits, progress: Progress, deadline: Deadline) -> Made:
    """The squashfs of *image* inside the directory *work*. Raises ImageRefused, NoSpace, EnvironmentFault."""
    if image.artifact:
        return _taken(image, name, work, limits, progress)
    progress.phase("flatten", environment=name)
    flattened = Flattened(image.layers, limits, deadline)
    require_space(work, flattened.content_bytes // MIB + 1, name)
    config = replace(image.described.config, shell=flattened.has("/bin/sh"))
    if config.cwd:
        flattened.require_directory(config.cwd)
    target = work / "rootfs.squashfs"
    progress.phase("pack", environment=name)
    pack(name, flattened.write, target, lambda done: progress.advance(done, None), deadline)
    return Made(target, image.source, packages_of(target, deadline), image.digest, config)


def _taken(image: Image, name: str, work: Path, limits: Limits, progress: Progress) -> Made:
    """The root filesystem of an artifact. Its lists are read from its description: no host program opens it."""
    progress.phase("unpack", environment=name)
    rootfs, about = image.layers
    target = work / "rootfs.squashfs"
    with storage(f"unpacking {name}"), target.open("xb") as file:
        _single(rootfs, ROOTFS_TITLE, Budget(limits), file.write)
    with storage(f"reading {target}"), target.open("rb") as file:
        if file.read(len(SQUASHFS_MAGIC)) != SQUASHFS_MAGIC:
            raise ImageRefused("the artifact's root filesystem is no squashfs")
    data = bytearray()
    _single(about, ABOUT_TITLE, Budget(Limits(ABOUT_BYTES_MOST)), data.extend)
    packages, config = _described(bytes(data))
    return Made(target, image.source, packages, image.digest, config)


def _single(layer: Layer, title: str, budget: Budget, write: Callable[[bytes], object]) -> None:
    """Write the content of the one file in a layer of an artifact."""
    names = []
    with unpacked(layer.blob, budget, diff_id=layer.diff_id, verify=True) as stream:
        reader = TarReader(stream)
        for entry in reader:
            names.append(entry.path.decode(errors="replace"))
            if names == [title] and entry.kind == FILE:
                for piece in reader.content(entry):
                    write(piece)
    if names != [title]:
        raise ImageRefused(f"a layer of the artifact should hold {title} alone")


def _described(data: bytes) -> tuple[dict[str, str], ImageConfig | None]:
    """Packages and configuration in an artifact's description."""
    try:
        value = json.loads(data)
        packages, config = value["packages"], value.get("config")
        found = None if config is None else ImageConfig.from_dict(config)
        sound = all(isinstance(text, str) for text in (*packages, *packages.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageRefused(f"the artifact's description is damaged: {error}") from error
    if not sound:
        raise ImageRefused("the artifact's description is damaged")
    return packages, found
