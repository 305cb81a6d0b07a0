"""The curated environments, as data."""

import difflib
import hashlib
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from pyro_mcp import __version__
from pyro_mcp.errors import InvalidRequest, UnknownEnvironment

CATALOG_VERSION = __version__
COMPATIBILITY = ">=2.0.0,<3.0.0"

# name[:tag], the name in lower case with components parted by single slashes. Only the catalog's names get into paths.
COMPONENT = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
NAME = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?")
NAME_LENGTH_MOST = 255


class OciName(NamedTuple):
    """The image of an OCI registry that an environment is made of. *reference* is a tag or a digest."""

    registry: str
    repository: str
    reference: str


class CatalogEntry(NamedTuple):
    """One environment. *packages* are promised to be there, *include* is added to Debian's minimal set.

    *root_mib* and *image_mib* are generous estimates of the disk space the unpacked root and the image need.
    *oci_lacks*: what is promised and not in the OCI image, so that nobody pulls it to find out. *origin* tells the
    catalog's own entries from those made up for an image of a registry or an imported one.
    """

    name: str
    description: str
    packages: tuple[str, ...]
    include: tuple[str, ...]
    root_mib: int
    image_mib: int
    oci: OciName
    version: str = "1.0.0"
    distribution: str = "debian"
    distribution_version: str = "12"
    suite: str = "bookworm"
    oci_lacks: tuple[str, ...] = ()
    origin: Literal["catalog", "image", "import"] = "catalog"

    @property
    def slug(self) -> str:
        """The name as part of a file name. The names of images are anybody's choice, so a digest keeps them apart."""
        if self.origin == "catalog":
            return re.sub(r"[:/]", "_", self.name)
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", self.name)[:80]
        return f"{readable}-{hashlib.sha256(self.name.encode()).hexdigest()[:12]}"

    @property
    def directory_name(self) -> str:
        """The directory of this environment and version in the cache."""
        return f"{self.slug}-{self.version}"


CATALOG: tuple[CatalogEntry, ...] = (
    CatalogEntry(
        name="debian:12",
        description="Debian 12 with Git.",
        packages=("bash", "coreutils", "git"),
        include=("bash", "coreutils", "ca-certificates", "git"),
        root_mib=600,
        image_mib=160,
        oci=OciName("docker.io", "library/buildpack-deps", "bookworm-scm"),
    ),
    CatalogEntry(
        name="debian:12-base",
        description="Debian 12, minimal.",
        packages=("bash", "coreutils"),
        include=("bash", "coreutils", "ca-certificates"),
        root_mib=500,
        image_mib=130,
        oci=OciName("docker.io", "library/debian", "bookworm-slim"),
        oci_lacks=("ca-certificates",),  # without them no HTTPS, once there is a network
    ),
    CatalogEntry(
        name="debian:12-build",
        description="Debian 12 with Git, a C compiler, Make, CMake and Python 3.",
        packages=("bash", "coreutils", "git", "gcc", "make", "cmake", "python3"),
        include=("bash", "coreutils", "ca-certificates", "git", "gcc", "libc6-dev", "make", "cmake", "python3"),
        root_mib=1200,
        image_mib=350,
        oci=OciName("docker.io", "library/buildpack-deps", "bookworm"),
        oci_lacks=("cmake",),
    ),
)


def lookup(name: str, catalog: Iterable[CatalogEntry] = CATALOG) -> CatalogEntry:
    """The entry called *name*. Raises InvalidRequest for what cannot be a name, UnknownEnvironment for other names."""
    if not isinstance(name, str) or len(name) > NAME_LENGTH_MOST or not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r:.80} is not the name of an environment",
            remedy="A name looks like debian:12; run `pyro env list` to see the environments.",
        )
    entries = {entry.name: entry for entry in catalog}
    if name in entries:
        return entries[name]
    raise UnknownEnvironment(f"unknown environment {name!r}{_hint(name, list(entries))}")


def _hint(name: str, known: list[str]) -> str:
    """The nearest known name, if one is near: letters swapped, or a tag too many or too few."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
