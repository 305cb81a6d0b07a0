"""Blobs and manifests on their way to a registry, in pieces; one that breaks off goes on where the registry stands."""

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.environments.oci.layout import FileBlob
from pyro_mcp.environments.oci.media import Descriptor
from pyro_mcp.environments.oci.registry import Repository
from pyro_mcp.environments.oci.transport import AGAIN, Answer, Broken, Transport, joined, retry_after
from pyro_mcp.errors import RegistryFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import read_json, write_json

RANGE = re.compile(r"(?:bytes=)?0-(?P<last>[0-9]+)")
ANY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Uploader:
    """Sends to one repository. *notes* is a directory where unfinished uploads are written down."""

    repository: Repository
    transport: Transport
    notes: Path
    chunk: int
    stall_seconds: float
    counted: Callable[[str, int], None]
    deadline: Deadline

    def blob(self, blob: Descriptor, content: FileBlob) -> bool:
        """Have *blob* in the repository; ``False`` when it was there already."""
        if self._status("HEAD", f"blobs/{blob.digest}") == 200:
            self.counted(blob.digest, blob.size)
            return False
        note = self.notes / f".upload-{blob.digest.removeprefix('sha256:')}.json"
        location, at = self._begin(note)
        attempt = 0
        while True:
            try:
                location, at = self._pieces(blob, content, note, location, at)
                self._finish(blob, location)
            except Broken:
                attempt += 1
                if attempt >= self.transport.tuning.attempts:
                    raise
                self.transport.pause(attempt, None, self.deadline)
                before = at
                location, at = self._begin(note)
                attempt = 0 if at > before else attempt
                continue
            note.unlink(missing_ok=True)
            return True

    def manifest(self, data: bytes, media_type: str, digest: str, tag: str) -> bool:
        """Have the manifest under *tag*; ``False`` when it was there already."""
        path = f"manifests/{tag}"
        answer = self.repository.send("HEAD", self.deadline, path=path, headers={"Accept": media_type})
        answer.close()
        if answer.status == 200 and answer.headers.get("Docker-Content-Digest") == digest:
            return False
        answer = self.repository.send("PUT", self.deadline, path=path, headers={"Content-Type": media_type}, body=data)
        if answer.status not in (200, 201, 202):
            raise self.repository.refusal(answer, f"the manifest {tag}")
        answer.close()
        return True

    def _status(self, method: str, path: str) -> int:
        answer = self.repository.send(method, self.deadline, path=path)
        if answer.status in (401, 403, 429) or answer.status >= 500:
            raise self.repository.refusal(answer, "the right to push to it")
        answer.close()
        return answer.status

    def _begin(self, note: Path) -> tuple[str, int]:
        """An upload: the one that was written down, at where the registry stands, or a new one."""
        known = read_json(note)
        location = known.get("location") if known else None
        if isinstance(location, str) and location.startswith(self.repository.base):
            answer = self.repository.send("GET", self.deadline, url=location)
            answer.close()
            found = RANGE.fullmatch(answer.headers.get("Range", ""))
            if answer.status == 204 and found is not None:
                last = int(found["last"])
                return self._located(answer, location), last + 1 if last else 0
        answer = self.repository.send("POST", self.deadline, path="blobs/uploads/", body=b"")
        if answer.status != 202:
            raise self.repository.refusal(answer, "the right to push to it")
        answer.close()
        location = self._located(answer, "")
        write_json(note, {"location": location})
        return location, 0

    def _pieces(self, blob: Descriptor, content: FileBlob, note: Path, location: str, at: int) -> tuple[str, int]:
        """Send what is missing from *at* on."""
        with content.open() as stream:
            _skip(stream.read, at)
            while at < blob.size:
                self.counted(blob.digest, at)
                data = stream.read(min(self.chunk, blob.size - at))
                headers = {"Content-Type": ANY, "Content-Range": f"{at}-{at + len(data) - 1}"}
                answer = self._send("PATCH", location, headers, data)
                if answer.status not in (202, 204):
                    raise self._failure(answer, f"a piece of {blob.digest}")
                answer.close()
                at += len(data)
                location = self._located(answer, location)
                write_json(note, {"location": location})
        self.counted(blob.digest, at)
        return location, at

    def _finish(self, blob: Descriptor, location: str) -> None:
        separator = "&" if "?" in location else "?"
        url = f"{location}{separator}{urllib.parse.urlencode({'digest': blob.digest})}"
        answer = self._send("PUT", url, {"Content-Type": ANY}, b"")
        if answer.status != 201:
            raise self._failure(answer, blob.digest)
        answer.close()

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """One attempt: whether a piece that got no answer was taken, only the registry knows."""
        return self.repository.send(
            method, self.deadline, url=url, headers=headers, body=body, attempts=1, stall_seconds=self.stall_seconds
        )

    def _failure(self, answer: Answer, what: str) -> RegistryFault:
        if answer.status in AGAIN or answer.status in (404, 416):
            wait = retry_after(answer.headers.get("Retry-After"))
            answer.close()
            if wait is not None and wait <= self.transport.tuning.pause_most:
                self.transport.pause(1, wait, self.deadline)
            return Broken(f"the registry answered status {answer.status} to {what}")
        return self.repository.refusal(answer, what)

    def _located(self, answer: Answer, usual: str) -> str:
        """Where the upload goes on. Raises RegistryFault when that is not at this registry."""
        stated = answer.headers.get("Location") or usual
        url = joined(self.repository.base, stated)
        if not stated or urllib.parse.urlsplit(url)[:2] != urllib.parse.urlsplit(self.repository.base)[:2]:
            raise RegistryFault(f"the registry wants the upload at {url!r:.120}, which is another host")
        return url


def _skip(read: Callable[[int], bytes], count: int) -> None:
    while count > 0:
        data = read(min(count, 1 << 20))
        if not data:
            return
        count -= len(data)
