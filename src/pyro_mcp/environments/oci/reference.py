"""Names of images: ``docker.io/library/debian:12``, ``ghcr.io/owner/name@sha256:...``, ``localhost:5000/x``.

A name says its registry. Docker's short names (``python:3.12``) are not taken: the short names are the catalog's, and
a misspelt one must not fetch whatever somebody has put under it on the internet.
"""

import re
from typing import NamedTuple

from pyro_mcp.errors import InvalidRequest

COMPONENT = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOST = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::(?P<port>[0-9]{{1,5}}))?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LENGTH_MOST = 512
REPOSITORY_LENGTH_MOST = 255
DOCKER_HUB = "docker.io"
# Where Docker's own registry really answers, and other names people know it by.
HUB_API = "registry-1.docker.io"
HUB_NAMES = (DOCKER_HUB, "index.docker.io", HUB_API, "registry.hub.docker.com")
REMEDY = "Name the image with its registry, for instance docker.io/library/debian:12-slim or ghcr.io/owner/name:tag."


class Reference(NamedTuple):
    """An image of a registry: by *tag*, or by *digest* (``sha256:`` and 64 hex digits), one of the two."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The whole name in its one normal form."""
        return f"{self.registry}/{self.repository}{f'@{self.digest}' if self.digest else f':{self.tag}'}"

    @property
    def wanted(self) -> str:
        """What a manifest is asked for by."""
        return self.digest or self.tag

    def at(self, digest: str) -> "Reference":
        """The same repository, by *digest*."""
        return self._replace(tag="", digest=digest)


def names_a_registry(text: str) -> bool:
    """Whether the part before the first slash is a registry: it has a dot or a port, or it is localhost."""
    host, slash, _ = text.partition("/")
    return bool(slash) and (host == "localhost" or "." in host or ":" in host) and not host.startswith(".")


def parse(text: str) -> Reference:
    """The normal form of *text*. Without tag and digest it is ``latest``; a tag beside a digest is dropped.

    Raises InvalidRequest for anything else than a name of an image with its registry.
    """
    if not isinstance(text, str) or len(text) > LENGTH_MOST or not names_a_registry(text):
        raise InvalidRequest(f"{text!r:.80} does not name an image of a registry", remedy=REMEDY)
    host, _, path = text.partition("/")
    path, at, digest = path.partition("@")
    repository, colon, tag = path.partition(":")
    if at and not DIGEST.fullmatch(digest):
        raise InvalidRequest(f"{text!r:.120}: a digest is sha256: and 64 lower-case hex digits", remedy=REMEDY)
    if colon and not TAG.fullmatch(tag):
        raise InvalidRequest(f"{text!r:.120}: this is not a tag: {tag!r:.60}", remedy=REMEDY)
    registry = _registry(host, text)
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if len(repository) > REPOSITORY_LENGTH_MOST or not REPOSITORY.fullmatch(repository):
        raise InvalidRequest(f"{text!r:.120}: this is not a repository: {repository!r:.60}", remedy=REMEDY)
    return Reference(registry, repository, tag="" if at else tag or "latest", digest=digest)


def _registry(host: str, text: str) -> str:
    found = HOST.fullmatch(host)
    if found is None or (found["port"] is not None and not 1 <= int(found["port"]) <= 65535):
        raise InvalidRequest(f"{text!r:.120}: this is not a registry: {host!r:.60}", remedy=REMEDY)
    registry = host.lower()
    return DOCKER_HUB if registry in HUB_NAMES else registry
