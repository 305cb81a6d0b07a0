"""Publishing an OCI layout: every blob and the manifest, only what the registry does not have."""

import threading
from collections.abc import Mapping
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.environments.oci import media
from pyro_mcp.environments.oci.credentials import credentials_for
from pyro_mcp.environments.oci.endpoint import endpoints, split
from pyro_mcp.environments.oci.layout import BLOB_PATH, INDEX, Files
from pyro_mcp.environments.oci.reference import Reference
from pyro_mcp.environments.oci.registry import PUSH, Repository
from pyro_mcp.environments.oci.transport import Transport, Tuning
from pyro_mcp.environments.oci.upload import Uploader
from pyro_mcp.errors import ImageRefused, InvalidRequest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import PublishedEnvironment


def publish(
    layout: Path,
    target: Reference,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    progress: Progress,
    deadline: Deadline,
) -> PublishedEnvironment:
    """Put the one image of *layout* under *target*. What is there is not sent again; what broke off goes on."""
    if target.digest:
        raise InvalidRequest(f"{target.name} names a digest; an image is published under a tag")
    files = Files(layout)
    entry, data, manifest = _read(files)
    blobs = {blob.digest: blob for blob in (*manifest.layers, manifest.config)}
    total, counts = sum(blob.size for blob in blobs.values()), dict[str, int]()

    def counted(digest: str, count: int) -> None:
        counts[digest] = count
        progress.advance(sum(counts.values()), total)

    progress.phase("publish", target=target.name)
    tuning = Tuning(stall_seconds=settings.oci_request_timeout)
    transport = Transport(tuning, threading.Event())
    try:
        server = endpoints(target.registry, "", split(settings.insecure_registries))[-1]
        credentials = credentials_for(target.registry, environ, named_by_user=True)
        repository = Repository(server, target.repository, transport, credentials, actions=PUSH)
        uploader = Uploader(
            repository,
            transport,
            layout,
            settings.oci_upload_chunk_bytes,
            settings.oci_upload_timeout,
            counted,
            deadline,
        )
        with storage(f"reading {layout}"):
            sent = [digest for digest, blob in blobs.items() if uploader.blob(blob, files.blob(digest))]
            fresh = uploader.manifest(data, entry.media_type, entry.digest, target.tag)
    finally:
        transport.close()
    return {
        "reference": target.name,
        "digest": entry.digest,
        "sent_blobs": len(sent),
        "present_blobs": len(blobs) - len(sent),
        "sent_bytes": sum(blobs[digest].size for digest in sent),
        "manifest_sent": fresh,
    }


def _read(files: Files) -> tuple[media.Descriptor, bytes, media.Manifest]:
    """The one manifest of a layout."""
    rows = media.document(files.read(INDEX, media.MANIFEST_BYTES_MOST), INDEX).get("manifests")
    if not isinstance(rows, list) or len(rows) != 1:
        raise ImageRefused("the layout should hold exactly one image")
    entry = media.descriptor(rows[0], "the image")
    data = files.read(BLOB_PATH.format(entry.digest.removeprefix("sha256:")), media.MANIFEST_BYTES_MOST)
    if media.digest_of(data) != entry.digest:
        raise ImageRefused(f"the manifest in the layout differs from its digest {entry.digest}")
    return entry, data, media.manifest(media.document(data, "the manifest"), entry.digest)
