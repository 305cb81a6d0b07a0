"""One registry, one repository: manifests and blobs, got and put."""

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from pyro_mcp.environments.oci import media
from pyro_mcp.environments.oci.authority import Authority
from pyro_mcp.environments.oci.credentials import Credentials
from pyro_mcp.environments.oci.endpoint import Endpoint
from pyro_mcp.environments.oci.media import Descriptor
from pyro_mcp.environments.oci.transport import Answer, PlainHttp, Transport, retry_after
from pyro_mcp.errors import ImageRefused, RegistryFault
from pyro_mcp.host.deadline import Deadline

PULL, PUSH = "pull", "pull,push"
ERROR_BYTES_MOST = 64 << 10
LOGIN = "Log in with `docker login`, or set OCI_REGISTRY_USERNAME and OCI_REGISTRY_PASSWORD."
CHECK_NAME = "Check the name and the tag of the image."


class NotThere(RegistryFault):
    """The registry does not have it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index as the registry sent it, compared with its digest. *media_type*: what it is."""

    data: bytes
    digest: str
    media_type: str


class Repository:
    """A repository of a registry, asked with the rights of *actions* (``pull`` or ``pull,push``)."""

    def __init__(
        self,
        endpoint: Endpoint,
        repository: str,
        transport: Transport,
        credentials: Credentials | None,
        *,
        actions: str = PULL,
    ) -> None:
        self.endpoint = endpoint
        self._name = endpoint.repository(repository)
        self._scope = f"repository:{self._name}:{actions}"
        self._transport = transport
        self._authority = Authority(transport, credentials, endpoint.plain)
        self._scheme = "https"
        self._settled = not endpoint.plain

    @property
    def base(self) -> str:
        """The address that all requests of this repository begin with."""
        return f"{self._scheme}://{self.endpoint.host}/v2/{self._name}/"

    def manifest(self, wanted: str, deadline: Deadline) -> Document:
        """The manifest or index *wanted* (a tag or a digest). Raises RegistryFault, ImageRefused."""
        what = f"the manifest {wanted}"
        answer = self.get(f"manifests/{wanted}", what, deadline, headers={"Accept": media.ACCEPT})
        try:
            data = answer.body(media.MANIFEST_BYTES_MOST, what)
            stated = answer.headers.get("Content-Type", "")
        finally:
            answer.close()
        digest = media.digest_of(data)
        if wanted.startswith("sha256:") and digest != wanted:
            raise RegistryFault(f"{self.endpoint.title} sent a manifest whose digest is {digest}, not {wanted}")
        return Document(data, digest, media.media_type_of(media.document(data, what), stated))

    def small_blob(self, blob: Descriptor, deadline: Deadline) -> bytes:
        """A blob that is read into memory, compared with its digest."""
        what = f"the blob {blob.digest}"
        answer = self.get(f"blobs/{blob.digest}", what, deadline)
        try:
            data = answer.body(blob.size, what)
        finally:
            answer.close()
        if media.digest_of(data) != blob.digest:
            raise RegistryFault(f"{self.endpoint.title} sent a blob that differs from its digest {blob.digest}")
        return data

    def get(
        self, path: str, what: str, deadline: Deadline, *, headers: Mapping[str, str] | None = None, attempts: int = 0
    ) -> Answer:
        """GET *path*: an answer of status 200 or 206. Raises RegistryFault for others, naming *what* was asked for."""
        answer = self.send("GET", deadline, path=path, headers=headers, attempts=attempts)
        if answer.status not in (200, 206):
            raise self.refusal(answer, what)
        return answer

    def send(
        self,
        method: str,
        deadline: Deadline,
        *,
        path: str = "",
        url: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        attempts: int = 0,
        stall_seconds: float = 0,
    ) -> Answer:
        """One request with the right credentials, for *path* below ``base`` or a whole *url*; of any status."""
        if not self._settled:
            self._settle(deadline)
        url = self.base + path if path else url
        for turn in range(3):  # as nobody; with a token; with a fresh one, when that had run out
            used = self._authority.known(self._scope) if self._is_ours(url) else {}
            answer = self._transport.request(
                method,
                url,
                headers={**(headers or {}), **used},
                body=body,
                deadline=deadline,
                attempts=attempts,
                stall_seconds=stall_seconds,
            )
            challenge = answer.headers.get("WWW-Authenticate", "")
            if answer.status != 401 or turn == 2 or not challenge or not self._is_ours(answer.url):
                return answer
            try:
                better = self._authority.answer(challenge, self._scope, url, deadline, used=used)
            except BaseException:
                answer.close()
                raise
            if not better:
                return answer
            answer.close()
        raise AssertionError("the last turn returns")

    def refusal(self, answer: Answer, what: str) -> RegistryFault:
        """The error that an answer stands for; the answer is closed."""
        try:
            details = _details(answer)
        finally:
            answer.close()
        title, status = self.endpoint.title, answer.status
        if status == 404:
            return NotThere(f"{title} does not have {what} of {self._name}", remedy=CHECK_NAME, details=details)
        if status == 401:
            return RegistryFault(f"{title} wants a login for {self._name}", remedy=LOGIN, details=details)
        if status == 403:
            cause = f"{title} does not let you have {what} of {self._name}"
            return RegistryFault(cause, remedy=f"Ask for access, or log in as somebody else. {LOGIN}", details=details)
        if status == 429:
            wait = retry_after(answer.headers.get("Retry-After"))
            when = f"in {wait:.0f} seconds" if wait else "later"
            return RegistryFault(
                f"{title} takes no more requests from you now", remedy=f"Try again {when}. {LOGIN}", details=details
            )
        return RegistryFault(
            f"{title} answered status {status} to the request for {what}",
            remedy="Try again later." if status >= 500 else None,
            details=details,
        )

    def _is_ours(self, url: str) -> bool:
        parts = urllib.parse.urlsplit(url)
        return (parts.scheme, parts.netloc) == (self._scheme, self.endpoint.host)

    def _settle(self, deadline: Deadline) -> None:
        """Find out whether a server that may do without TLS does."""
        try:
            self._transport.request(
                "GET", self.base.partition("/v2/")[0] + "/v2/", headers={}, deadline=deadline
            ).close()
        except PlainHttp:
            self._scheme = "http"
        self._settled = True


def _details(answer: Answer) -> list[str]:
    """What the registry says about a refusal, safe to print."""
    try:
        value = json.loads(answer.body(ERROR_BYTES_MOST, "an error"))
        rows = value["errors"][:3]
        texts = [f"{row.get('code', '')}: {row.get('message', '')}" for row in rows]
    except (RegistryFault, ImageRefused, ValueError, KeyError, TypeError, AttributeError):
        return []
    return ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:300] for text in texts]
