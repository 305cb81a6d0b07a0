"""The blobs of one image, fetched in parallel."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.environments.oci import media
from pyro_mcp.environments.oci.blobs import BlobStore, StoredBlob
from pyro_mcp.environments.oci.media import Descriptor, Manifest
from pyro_mcp.environments.oci.registry import Document, Repository
from pyro_mcp.environments.oci.transport import Answer, Transport, Tuning
from pyro_mcp.errors import Interrupted
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress


@dataclass(frozen=True, slots=True)
class Puller:
    """What a pull works with."""

    store: BlobStore
    transport: Transport
    stop: threading.Event
    progress: Progress
    deadline: Deadline

    def manifest(self, repository: Repository, document: Document) -> Manifest:
        """The manifest for this platform, by way of the index if *document* is one."""
        if document.media_type in media.INDEXES:
            entry = media.chosen(media.document(document.data, "the index"))
            document = repository.manifest(entry.digest, self.deadline)
        return media.manifest(media.document(document.data, "the manifest"), document.digest)

    def blobs(self, repository: Repository, layers: Sequence[Descriptor], name: str) -> list[StoredBlob]:
        """All *layers*, fetched or found, each held open. The first failure stops the others; what came is kept."""
        unique = {layer.digest: layer for layer in layers}
        counts = _Counts(sum(layer.size for layer in unique.values()), self.progress.advance)
        self.progress.phase("download", environment=name)
        with ThreadPoolExecutor(self.transport.tuning.parallel, "blob") as pool:
            futures: dict[str, Future[StoredBlob]] = {
                digest: pool.submit(self._fetch, repository, layer, counts) for digest, layer in unique.items()
            }
            try:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
                self._raise_first(futures.values())
                by_digest = {digest: future.result() for digest, future in futures.items()}
            except BaseException:
                self.stop.set()
                for future in futures.values():
                    future.cancel()
                    future.add_done_callback(_let_go)
                raise
        return [by_digest[layer.digest] for layer in layers]

    def _raise_first(self, futures: Iterable["Future[StoredBlob]"]) -> None:
        """Raise what a transfer ended with; that others were stopped for it is no news."""
        failed = [error for future in futures if future.done() and (error := future.exception())]
        if failed:
            raise next((error for error in failed if not isinstance(error, Interrupted)), failed[0])

    def _fetch(self, repository: Repository, layer: Descriptor, counts: "_Counts") -> StoredBlob:
        def ask(blob: Descriptor, start: int) -> Answer:
            headers = {"Range": f"bytes={start}-"} if start else {}
            return repository.get(f"blobs/{blob.digest}", f"the layer {blob.digest}", self.deadline, headers=headers)

        def counted(count: int) -> None:
            if self.stop.is_set():
                raise Interrupted("the transfer was stopped")
            self.deadline.check("the download")
            counts.set(layer.digest, count)

        def pause(attempt: int) -> None:
            self.transport.pause(attempt, None, self.deadline)

        return self.store.fetch(layer, ask, pause, counted, self.deadline)


class _Counts:
    """Bytes that are here, of all blobs together."""

    def __init__(self, total: int, tell: Callable[[int, int], None]) -> None:
        self._total = total
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def set(self, digest: str, count: int) -> None:
        """This many bytes of that blob are here."""
        with self._lock:
            self._counts[digest] = count
            self._tell(sum(self._counts.values()), self._total)


def _let_go(future: "Future[StoredBlob]") -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


@contextlib.contextmanager
def pulling(directory: Path, tuning: Tuning, progress: Progress, deadline: Deadline) -> Iterator[Puller]:
    """A puller that keeps its blobs in *directory*; its threads and connections end with the block."""
    stop = threading.Event()
    transport = Transport(tuning, stop)
    try:
        yield Puller(BlobStore(directory, tuning.attempts), transport, stop, progress, deadline)
    finally:
        stop.set()
        transport.close()
