"""Signatures of images: the place where a check goes. None is built in."""

from typing import Protocol

from pyro_mcp.environments.oci.reference import Reference


class Signatures(Protocol):
    """Decides whether an image may be installed."""

    def check(self, reference: Reference, digest: str) -> None:
        """Raise ImageRefused unless the manifest with *digest* is signed by whom this user trusts for *reference*."""


class NoSignatures:
    """Every image may be installed; what protects is the pinned digest."""

    def check(self, reference: Reference, digest: str) -> None:
        """Accept it."""
