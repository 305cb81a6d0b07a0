"""What an installed environment is to those who use it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyro_mcp.model import EnvironmentRecord

if TYPE_CHECKING:
    from pyro_mcp.environments.oci.config import ImageConfig


class Installed(NamedTuple):
    """An installed environment.

    *rootfs* is the read-only squashfs image, *digest* its SHA-256 in hex (no prefix), *source* where it came from
    (for instance ``bootstrap:debian/bookworm``), *packages* what is in it, with versions, *record* what surfaces show.
    *config*: how the image wants its commands run; ``None`` for one of the catalog.
    """

    name: str
    version: str
    rootfs: Path
    digest: str
    source: str
    packages: dict[str, str]
    record: EnvironmentRecord
    config: "ImageConfig | None" = None


class Kernel(NamedTuple):
    """The kernel that machines are started with: an uncompressed ELF file, and what uname(1) -r says of it."""

    path: Path
    release: str
