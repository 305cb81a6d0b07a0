"""Where a registry is asked: the registry itself, or a mirror of it."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyro_mcp.environments.oci.reference import DOCKER_HUB, HOST, HUB_API
from pyro_mcp.errors import InvalidRequest

MIRROR = re.compile(
    r"(?P<registry>[^=\s]+)=(?:(?P<scheme>https?)://)?(?P<host>[^/\s]+)(?P<path>(?:/[a-z0-9][a-z0-9._-]*)*)/?"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server of images. *plain*: it may be talked to without TLS. *prefix* goes before each repository."""

    registry: str  # the name in references; credentials belong to it
    host: str
    plain: bool
    prefix: str = ""

    @property
    def title(self) -> str:
        """What a person calls it."""
        own = self.host in (self.registry, HUB_API)
        return self.registry if own else f"{self.host}{f'/{self.prefix}' if self.prefix else ''}"

    def repository(self, repository: str) -> str:
        """*repository* as this server has it."""
        return f"{self.prefix}/{repository}" if self.prefix else repository


def is_loopback(host: str) -> bool:
    """Whether *host* (with or without a port) is this machine."""
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def endpoints(registry: str, mirrors: str, insecure: Sequence[str]) -> list[Endpoint]:
    """The servers of *registry* in the order they are asked: its *mirrors*, then itself."""
    found = []
    for text in split(mirrors):
        match = MIRROR.fullmatch(text)
        if match is None or not HOST.fullmatch(match["host"]):
            raise InvalidRequest(
                f"PYRO_REGISTRY_MIRRORS: {text!r:.80} is not REGISTRY=HOST",
                remedy="For instance: PYRO_REGISTRY_MIRRORS=docker.io=https://mirror.example.com",
            )
        if match["registry"] == registry:
            plain = match["scheme"] == "http" or _may_be_plain(match["host"], insecure)
            found.append(Endpoint(match["host"], match["host"], plain, match["path"].strip("/")))
    host = HUB_API if registry == DOCKER_HUB else registry
    return [*found, Endpoint(registry, host, _may_be_plain(registry, insecure))]


def split(text: str) -> list[str]:
    """The words of a list in a setting, parted by commas or spaces."""
    return [word for word in re.split(r"[,\s]+", text) if word]


def _may_be_plain(host: str, insecure: Sequence[str]) -> bool:
    return is_loopback(host) or host in insecure
