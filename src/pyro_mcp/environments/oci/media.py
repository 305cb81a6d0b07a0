"""Manifests and indexes: the JSON documents of a registry, read strictly."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from pyro_mcp.environments.oci.reference import DIGEST
from pyro_mcp.errors import ImageRefused

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
# How a layer is compressed is read from its first bytes; its type only says that it is a layer at all.
LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?"
)
MANIFEST_BYTES_MOST = 4 << 20
CONFIG_BYTES_MOST = 4 << 20
LAYERS_MOST = 512
ARCHITECTURE = "amd64"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: its digest, its size in bytes, and what it is said to be."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image: its configuration and its layers, the lowest first. *digest* is that of the document."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = field(default_factory=dict)


def digest_of(data: bytes) -> str:
    """The digest of a document."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(data: bytes, what: str) -> dict[str, Any]:
    """*data* as a JSON object. Raises ImageRefused."""
    if len(data) > MANIFEST_BYTES_MOST:
        raise ImageRefused(f"{what} is larger than {MANIFEST_BYTES_MOST} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ImageRefused(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise ImageRefused(f"{what} is not a JSON object")
    return value


def media_type_of(value: dict[str, Any], stated: str = "") -> str:
    """What a document is: what it says itself, else what the registry said, else what it looks like."""
    said = value.get("mediaType") or stated.partition(";")[0].strip()
    if isinstance(said, str) and said in (*MANIFESTS, *INDEXES):
        return said
    if value.get("schemaVersion") == 2 and said in ("", "application/json", "application/octet-stream"):
        return OCI_INDEX if isinstance(value.get("manifests"), list) else OCI_MANIFEST
    if value.get("schemaVersion") == 1:
        raise ImageRefused(
            "the image has a manifest of the old kind (schema 1), which names no digests to verify",
            remedy="Push the image again with a current tool (skopeo copy, docker push).",
        )
    raise ImageRefused(f"the registry answered with {said!r:.80}, which is no image manifest")


def descriptor(value: object, what: str) -> Descriptor:
    """The descriptor in a document. Raises ImageRefused."""
    row = value if isinstance(value, dict) else {}
    kind, digest, size = row.get("mediaType", ""), row.get("digest"), row.get("size")
    if not isinstance(kind, str) or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ImageRefused(f"the descriptor of {what} has no SHA-256 digest")
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise ImageRefused(f"the descriptor of {what} has no size")
    return Descriptor(kind, digest, size, texts(row.get("annotations")))


def texts(value: object) -> dict[str, str]:
    """The text entries of a mapping; anything else counts as empty."""
    rows = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in rows if isinstance(key, str) and isinstance(text, str)}


def manifest(value: dict[str, Any], digest: str) -> Manifest:
    """The manifest in a document. Raises ImageRefused for what is no image of layers."""
    layers = value.get("layers")
    if not isinstance(layers, list) or not layers:
        raise ImageRefused("the manifest has no layers")
    if len(layers) > LAYERS_MOST:
        raise ImageRefused(f"the image has more than {LAYERS_MOST} layers")
    found = tuple(descriptor(layer, f"layer {number}") for number, layer in enumerate(layers))
    for number, layer in enumerate(found):
        if not LAYER.fullmatch(layer.media_type):
            raise ImageRefused(f"layer {number} is {layer.media_type!r:.80}, which is no layer of a root filesystem")
    config = descriptor(value.get("config"), "the configuration")
    if config.size > CONFIG_BYTES_MOST:
        raise ImageRefused(f"the image's configuration is larger than {CONFIG_BYTES_MOST} bytes")
    return Manifest(digest, config, found, texts(value.get("annotations")))


def chosen(value: dict[str, Any]) -> Descriptor:
    """The entry of an index for this platform. Raises ImageRefused naming the platforms there are."""
    rows = value.get("manifests")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    platforms = []
    for row in rows:
        system, machine = _platform(row)
        if (system, machine) == ("linux", ARCHITECTURE):
            return descriptor(row, "the image for this platform")
        platforms.append(f"{system}/{machine}")
    unmarked = [row for row in rows if "platform" not in row and _is_image(row)]
    if len(unmarked) == 1:  # a layout with one image often does not say for what
        return descriptor(unmarked[0], "the only image of the index")
    there = ", ".join(sorted({name for name in platforms if name != "unknown/unknown"})) or "none"
    raise ImageRefused(
        f"there is no image for linux/{ARCHITECTURE}; there is: {there:.200}",
        remedy="Use an image that is made for this platform.",
    )


def _platform(row: dict[str, Any]) -> tuple[str, str]:
    platform = row.get("platform")
    if not isinstance(platform, dict):
        return "unknown", "unknown"
    machine = str(platform.get("architecture", "unknown"))
    return str(platform.get("os", "unknown")), ARCHITECTURE if machine == "x86_64" else machine


def _is_image(row: dict[str, Any]) -> bool:
    return row.get("mediaType") in (*MANIFESTS, *INDEXES)
