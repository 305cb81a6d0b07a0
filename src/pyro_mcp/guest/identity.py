"""What makes a machine this one and no other: its names and its randomness."""

import os
import secrets
from dataclasses import dataclass, field
from typing import Any, Self

from pyro_mcp.model import check_machine_id

ENTROPY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Nic:
    """The guest's network device: its hardware address in 12 hex digits, its IPv4 addresses, its MTU in bytes.

    *authorities*: PEM certificates that the guest trusts besides those of its image.
    """

    mac: str
    address: str
    prefix: int
    gateway: str
    resolver: str
    mtu: int
    authorities: str = ""

    def as_fields(self) -> dict[str, Any]:
        """As ``configure`` takes it."""
        return {
            "mac": self.mac,
            "address": self.address,
            "prefix": self.prefix,
            "gateway": self.gateway,
            "resolver": self.resolver,
            "mtu": self.mtu,
            "authorities": self.authorities,
        }


@dataclass(frozen=True, slots=True)
class Identity:
    """What ``configure`` gives a guest after a boot or a resume; the wall clock is added when it is sent.

    Use it once.
    """

    hostname: str
    machine_id: str  # 32 hex digits, the guest's /etc/machine-id
    entropy: bytes = field(repr=False)
    resumed: bool
    nic: Nic | None = None

    @classmethod
    def fresh(cls, machine_id: str, *, resumed: bool = False, nic: Nic | None = None) -> Self:
        """A new identity for our machine *machine_id*; *resumed*: it comes from a snapshot; *nic*: if it has one.

        Raises InvalidRequest.
        """
        return cls(
            hostname=f"pyro-{check_machine_id(machine_id)}",
            machine_id=secrets.token_hex(16),
            entropy=os.urandom(ENTROPY_BYTES),
            resumed=resumed,
            nic=nic,
        )
