"""Images in files: an OCI layout (directory or archive), what ``docker save`` wrote, a plain tar of a root filesystem.

Nothing is unpacked by its name: an archive is read once for where its members lie, and blobs are read in place.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from pyro_mcp.config import Settings
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci import image as images
from pyro_mcp.environments.oci import media
from pyro_mcp.environments.oci.config import Described, ImageConfig, read_config
from pyro_mcp.environments.oci.flatten import Layer
from pyro_mcp.environments.oci.layers import Blob, Budget, Limits, unpacked
from pyro_mcp.environments.oci.reference import TAG
from pyro_mcp.environments.oci.tar_entry import FILE, LINK, SYMLINK
from pyro_mcp.environments.oci.tar_reader import TarReader
from pyro_mcp.environments.source import MIB, Made
from pyro_mcp.errors import ImageRefused, InvalidRequest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress

OCI_LAYOUT, INDEX, DOCKER_INDEX = "oci-layout", "index.json", "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
MEMBERS_MOST = 20_000
COPY = 1 << 20
BLOB_PATH = "blobs/sha256/{}"


@dataclass(frozen=True, slots=True)
class FileBlob:
    """A part of a file: *size* bytes from *offset*; by default all of it."""

    path: Path
    digest: str = ""
    offset: int = 0
    size: int = -1

    def open(self) -> BinaryIO:
        """A stream of its own from the beginning."""
        stream = self.path.open("rb")
        size = self.size if self.size >= 0 else self.path.stat().st_size - self.offset
        stream.seek(self.offset)
        return cast("BinaryIO", io.BufferedReader(_Part(stream, size), COPY))

    def read(self, most: int, what: str) -> bytes:
        """All of it. Raises ImageRefused when it is longer than *most* bytes."""
        with self.open() as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise ImageRefused(f"{what} is larger than {most} bytes")
        return data


class _Part(io.RawIOBase):
    """The next *left* bytes of a stream, which is closed with it."""

    def __init__(self, stream: BinaryIO, left: int) -> None:
        self._stream = stream
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader gives
        data = self._stream.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class Files:
    """Files by their paths in a layout: of a directory, or of an archive that was read once."""

    def __init__(self, root: Path, members: dict[str, FileBlob] | None = None) -> None:
        self._root = root
        self._members = members

    def find(self, path: str) -> FileBlob | None:
        """The file at *path*, a path that was checked."""
        if self._members is not None:
            return self._members.get(path)
        found = self._root / path
        return FileBlob(found) if found.is_file() else None

    def read(self, path: str, most: int) -> bytes:
        """The content of a small file. Raises ImageRefused when it is missing or too long."""
        found = self.find(path)
        if found is None:
            raise ImageRefused(f"the image has no {path:.200}")
        return found.read(most, path)

    def blob(self, digest: str) -> FileBlob:
        """A blob by its digest. Raises ImageRefused when it is missing."""
        found = self.find(BLOB_PATH.format(digest.removeprefix("sha256:")))
        if found is None:
            raise ImageRefused(f"the image has no blob {digest}")
        return replace(found, digest=digest)


class LayoutSource:
    """An image at *path*, as a source of environments. ``DIRECTORY:TAG`` chooses one of several."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._tag = ""
        if not path.exists() and ":" in path.name:
            name, _, tag = path.name.rpartition(":")
            if TAG.fullmatch(tag) and path.with_name(name).exists():
                self._path, self._tag = path.with_name(name), tag
        self._settings = settings

    @property
    def title(self) -> str:
        """What a person calls it."""
        return "import"

    def offers(self, entry: CatalogEntry) -> bool:
        """Whether it can be asked for *entry*: it is what is imported under that name."""
        return entry.origin == "import"

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Flatten the image into the directory *work*."""
        if not self._path.exists():
            raise InvalidRequest(f"{self._path} is not there", remedy="Give the path of an image to import.")
        limits = Limits(self._settings.image_max_mib * MIB)
        progress.phase("read", environment=entry.name)
        with storage(f"reading {self._path}"):
            image = self._image(work, limits)
            return images.make(image, entry.name, work, limits, progress, deadline)

    def _image(self, work: Path, limits: Limits) -> images.Image:
        source = f"import:{self._path.name}"
        if self._path.is_dir():
            if not (self._path / INDEX).is_file():
                raise InvalidRequest(
                    f"{self._path} is no OCI layout: it has no {INDEX}",
                    remedy="Import a layout, an archive, or a tar of a root filesystem (tar -C DIR -c .).",
                )
            return self._of_layout(Files(self._path), source)
        archive = _plain(self._path, work, limits)
        members = _members(archive)
        if OCI_LAYOUT in members and INDEX in members:
            return self._of_layout(Files(archive, members), source)
        if DOCKER_INDEX in members:
            return _of_docker(Files(archive, members), source)
        nothing = Described(ImageConfig(), ("",), {})
        return images.Image(source, "", nothing, (Layer(FileBlob(archive)),))

    def _of_layout(self, files: Files, source: str) -> images.Image:
        index = media.document(files.read(INDEX, media.MANIFEST_BYTES_MOST), INDEX)
        entry = self._chosen(index)
        for _ in range(4):  # an index of indexes; deeper ones make no sense
            data = files.read(BLOB_PATH.format(entry.digest.removeprefix("sha256:")), media.MANIFEST_BYTES_MOST)
            _check(data, entry.digest)
            value = media.document(data, "the manifest")
            if media.media_type_of(value, entry.media_type) in media.MANIFESTS:
                return _of_manifest(files, media.manifest(value, entry.digest), source)
            entry = media.chosen(value)
        raise ImageRefused("the index of the image leads to no manifest")

    def _chosen(self, index: dict[str, object]) -> media.Descriptor:
        rows = index.get("manifests")
        rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        names = {media.texts(row.get("annotations")).get(REF_NAME, "") for row in rows} - {""}
        if self._tag:
            rows = [row for row in rows if media.texts(row.get("annotations")).get(REF_NAME) == self._tag]
        elif len(names) > 1:
            raise InvalidRequest(
                f"{self._path} holds several images: {', '.join(sorted(names)):.300}",
                remedy=f"Choose one: {self._path}:{min(names)}",
            )
        if not rows:
            raise InvalidRequest(f"{self._path} holds no image{f' {self._tag}' if self._tag else ''}")
        if len(rows) == 1:
            return media.descriptor(rows[0], "the image")
        return media.chosen({"manifests": rows})


def _of_manifest(files: Files, manifest: media.Manifest, source: str) -> images.Image:
    data = files.blob(manifest.config.digest).read(media.CONFIG_BYTES_MOST, "the image's configuration")
    _check(data, manifest.config.digest)
    described = read_config(data)
    layers, ids = manifest.layers, described.diff_ids
    artifact = images.is_artifact(manifest, described)
    if artifact:
        layers, ids = layers[1:], ids[1:]
    blobs: list[Blob] = [files.blob(layer.digest) for layer in layers]
    return images.Image(source, manifest.digest, described, images.layers_of(blobs, ids), artifact)


def _of_docker(files: Files, source: str) -> images.Image:
    """What docker saved: ``manifest.json`` names a configuration and layers by their paths in the archive."""
    rows = media.document(b'{"rows":' + files.read(DOCKER_INDEX, media.MANIFEST_BYTES_MOST) + b"}", DOCKER_INDEX)[
        "rows"
    ]
    row = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if isinstance(rows, list) and len(rows) > 1:
        raise InvalidRequest(
            f"the archive holds {len(rows)} images", remedy="Save one image alone: docker save NAME > FILE."
        )
    config, layers = row.get("Config"), row.get("Layers")
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(path, str) for path in layers):
        raise ImageRefused(f"{DOCKER_INDEX} names no image")
    described = read_config(files.read(config, media.CONFIG_BYTES_MOST))
    blobs: list[Blob] = []
    for path in layers:
        found = files.find(path)
        if found is None:
            raise ImageRefused(f"the image has no {path!r:.200}")
        blobs.append(found)
    return images.Image(source, "", described, images.layers_of(blobs, described.diff_ids))


def _check(data: bytes, digest: str) -> None:
    if media.digest_of(data) != digest:
        raise ImageRefused(f"a document of the image differs from its digest {digest}")


def _plain(path: Path, work: Path, limits: Limits) -> Path:
    """*path*, or the tar that it unpacks to when it is compressed."""
    with unpacked(FileBlob(path), Budget(limits), verify=False) as stream:
        if not stream.peek(1):
            raise ImageRefused(f"{path} is empty")
        with path.open("rb") as file:
            same = stream.peek(512)[:512] == file.read(512)
        if same:
            return path
        target = work / "archive.tar"
        with target.open("xb") as file:
            while data := stream.read(COPY):
                file.write(data)
    return target


def _members(archive: Path) -> dict[str, FileBlob]:
    """Where the files of an archive lie; empty for one that has too many to be an archive of an image."""
    found: dict[str, FileBlob] = {}
    links: dict[str, str] = {}
    with archive.open("rb") as stream:
        for entry in TarReader(stream):
            name = entry.path.decode(errors="surrogateescape")
            if entry.kind == FILE and entry.data is None:
                found[name] = FileBlob(archive, "", stream.tell(), entry.size)
            elif entry.kind in (SYMLINK, LINK):
                links[name] = _target(name, entry.target.decode(errors="surrogateescape"), entry.kind)
            if len(found) + len(links) > MEMBERS_MOST:
                return {}
    for name, target in links.items():  # old dockers saved a layer once and linked to it
        if target in found:
            found.setdefault(name, found[target])
    return found


def _target(name: str, target: str, kind: int) -> str:
    if kind == LINK:
        return target
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
