"""What is kept about an installed environment: its ``environment.json``."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.host.files import read_json, write_json

if TYPE_CHECKING:  # imported where it is used: an environment of the catalog does not wait for it
    from pyro_mcp.environments.oci.config import ImageConfig

RECORD_NAME = "environment.json"
DIGEST = re.compile(r"[0-9a-f]{64}")


def image_name(digest: str) -> str:
    """The file name of the image with this SHA-256."""
    return f"sha256-{digest}.squashfs"


@dataclass(frozen=True, slots=True)
class InstallRecord:
    """An installed environment. *size* and *mtime_ns* are the hashed image's; *installed_at* is in Unix seconds.

    *manifest_digest* is that of the image it was made of, *config* what that image says about its commands; both are
    empty for other environments, and missing in records of earlier versions.
    """

    catalog_version: str
    name: str
    version: str
    source: str
    source_digest: str
    image: str
    size: int
    mtime_ns: int
    installed_at: int
    packages: dict[str, str]
    manifest_digest: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def describes(self, entry: CatalogEntry) -> bool:
        """Whether this is *entry*, in the version of the catalog."""
        return (self.name, self.version) == (entry.name, entry.version)

    @property
    def image_config(self) -> "ImageConfig | None":
        """What the image says about its commands; ``None`` when it says nothing."""
        return _image_config(self.config) if self.config else None

    def write(self, directory: Path) -> None:
        """Write it into *directory*, atomically."""
        write_json(directory / RECORD_NAME, asdict(self))


def read_record(directory: Path) -> InstallRecord | None:
    """The record in *directory*; ``None`` when there is none or it is damaged."""
    value = read_json(directory / RECORD_NAME)
    if value is None or not _is_sound(value):
        return None
    return InstallRecord(**{name: value[name] for name in InstallRecord.__slots__ if name in value})


def _image_config(value: dict[str, Any]) -> "ImageConfig":
    """Raises ValueError or AttributeError for one that is damaged."""
    from pyro_mcp.environments.oci.config import ImageConfig

    return ImageConfig.from_dict(value)


def _is_sound(value: dict[str, Any]) -> bool:
    texts = ("catalog_version", "name", "version", "source", "source_digest", "image")
    numbers = ("size", "mtime_ns", "installed_at")
    packages = value.get("packages")
    try:
        if value.get("config"):
            _image_config(value["config"])
    except (ValueError, AttributeError):
        return False
    return (
        isinstance(value.get("manifest_digest", ""), str)
        and all(isinstance(value.get(name), str) for name in texts)
        and all(type(value.get(name)) is int for name in numbers)
        and DIGEST.fullmatch(value["source_digest"]) is not None
        and value["image"] == image_name(value["source_digest"])
        and isinstance(packages, dict)
        and all(isinstance(version, str) for version in packages.values())
    )
