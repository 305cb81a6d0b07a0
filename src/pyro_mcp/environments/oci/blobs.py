"""Blobs on their way here: kept while they come in, so that a broken or killed pull goes on where it stopped.

::

    <environments>/blobs/sha256-<digest>            a blob that was compared with its digest
    <environments>/blobs/.partial-sha256-<digest>   one that comes in, locked by who fetches it
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from pyro_mcp.environments.oci.media import Descriptor
from pyro_mcp.environments.oci.transport import Answer, Broken
from pyro_mcp.errors import RegistryFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, storage
from pyro_mcp.host.locks import locked

CHUNK = 1 << 20
PARTIAL = ".partial-"
Counted = Callable[[int], None]


class Asker(Protocol):
    """Where a blob comes from."""

    def __call__(self, blob: Descriptor, start: int) -> Answer:
        """The blob from the byte *start* on: an answer of status 206, or 200 with all of it."""


class Pause(Protocol):
    """The wait between attempts."""

    def __call__(self, attempt: int) -> None:
        """Wait before the attempt after *attempt*."""


class StoredBlob:
    """A blob in a file that is held open, so that it can be read even when somebody removes it."""

    def __init__(self, digest: str, path: Path) -> None:
        self.digest = digest
        self._file = path.open("rb")

    def open(self) -> BinaryIO:
        """A stream of its own from the beginning."""
        return Path(f"/proc/self/fd/{self._file.fileno()}").open("rb")

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


class BlobStore:
    """The blobs of one cache, for any number of processes: two that want the same blob fetch it once."""

    def __init__(self, directory: Path, attempts: int) -> None:
        self._directory = directory
        self._attempts = attempts

    def fetch(self, blob: Descriptor, ask: Asker, pause: Pause, counted: Counted, deadline: Deadline) -> StoredBlob:
        """The blob, fetched unless it is here. *counted* gets the bytes of it that are here, more and more.

        Raises RegistryFault, NoSpace, StorageFault.
        """
        private_directory(self._directory)
        name = blob.digest.replace(":", "-")
        final, partial = self._directory / name, self._directory / f"{PARTIAL}{name}"
        with locked(partial, deadline), storage(f"storing {name}"):
            if not final.exists():
                self._fill(partial, blob, ask, pause, counted)
                partial.replace(final)
            else:
                partial.unlink()
            counted(blob.size)
            return StoredBlob(blob.digest, final)

    def drop(self, digests: list[str]) -> None:
        """Remove blobs that are packed into an image; who has one open keeps it."""
        for digest in digests:
            path = self._directory / digest.replace(":", "-")
            with storage(f"removing {path}"), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _fill(self, partial: Path, blob: Descriptor, ask: Asker, pause: Pause, counted: Counted) -> None:
        """Fetch what is missing of *partial*, again after a break, and once more from the start if it is wrong."""
        fresh = partial.stat().st_size == 0
        attempt = 0
        while True:
            attempt += 1
            before = partial.stat().st_size
            try:
                found = self._continue(partial, blob, ask, counted)
            except Broken:
                if partial.stat().st_size > before:
                    attempt = 0  # it goes on, if in pieces
                elif attempt >= self._attempts:
                    raise
                pause(max(attempt, 1))
                continue
            if found == blob.digest:
                return
            os.truncate(partial, 0)
            if fresh:
                raise RegistryFault(
                    f"a blob differs from its digest: it is {found}, and should be {blob.digest}",
                    remedy="Pull again; if it stays so, the registry or a proxy on the way changes what it sends.",
                )
            fresh = True

    def _continue(self, partial: Path, blob: Descriptor, ask: Asker, counted: Counted) -> str:
        """Read what is there, fetch the rest; the digest of all."""
        with partial.open("r+b", buffering=0) as file:
            sha = hashlib.sha256()
            at = 0
            while data := file.read(CHUNK):
                sha.update(data)
                at += len(data)
            if at > blob.size:
                file.truncate(0)
                return ""
            counted(at)
            if at < blob.size:
                with contextlib.closing(ask(blob, at)) as answer:
                    at = _start(answer, at, blob, file)
                    sha = sha if at else hashlib.sha256()
                    for data in _bounded(answer, blob.size - at):
                        file.write(data)
                        sha.update(data)
                        at += len(data)
                        counted(at)
                if at < blob.size:
                    raise Broken("a blob was cut off on its way")
            os.fsync(file.fileno())
        return f"sha256:{sha.hexdigest()}"


def _start(answer: Answer, at: int, blob: Descriptor, file: BinaryIO) -> int:
    """Where the answer begins: at *at*, or at 0 when the registry does not do parts."""
    stated = answer.headers.get("Content-Range", "")
    if answer.status == 206 and stated.startswith(f"bytes {at}-"):
        return at
    if answer.status == 206 or (length := answer.headers.get("Content-Length")) not in (None, str(blob.size)):
        raise RegistryFault(f"the registry sent another part of a blob than it was asked for: {stated or length!r}")
    file.seek(0)
    file.truncate(0)
    return 0


def _bounded(answer: Answer, most: int) -> Iterator[bytes]:
    for data in answer.chunks():
        most -= len(data)
        if most < 0:
            raise RegistryFault("the registry sent more of a blob than its size")
        yield data
