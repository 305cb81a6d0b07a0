"""The host packages pyro needs, and the command that installs them."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Requirement:
    """A program pyro starts, the Debian or Ubuntu package that has it, and what it is for.

    Root can do without some, and a host whose guests have no network without those of *network*.
    """

    program: str
    package: str
    purpose: str
    root_needs_it: bool = True
    network: bool = False


REQUIREMENTS = (
    Requirement("qemu-system-x86_64", "qemu-system-x86", "runs the virtual machines"),
    Requirement("sqfstar", "squashfs-tools", "packs environments"),
    Requirement("mmdebstrap", "mmdebstrap", "bootstraps Debian environments"),
    Requirement("mke2fs", "e2fsprogs", "formats scratch disks"),
    Requirement("apt-get", "apt", "fetches the kernel from the Debian archive"),
    Requirement("dpkg-deb", "dpkg", "unpacks the kernel package"),
    Requirement("unshare", "util-linux", "keeps the mounts of a bootstrap to itself"),
    Requirement("newuidmap", "uidmap", "lets a normal user bootstrap environments", root_needs_it=False),
    Requirement("nft", "nftables", "holds the network of a guest to its policy", network=True),
    Requirement("pasta", "passt", "gives a guest a network where root's own means do not", network=True),
)

# What pyro's own tests need besides.
DEVELOPER = (
    Requirement("docker-registry", "docker-registry", "is the registry of the tests"),
    Requirement("skopeo", "skopeo", "pushes and copies images in the tests"),
    Requirement("umoci", "umoci", "unpacks images in the tests, to compare"),
    Requirement("busybox", "busybox-static", "is in an image of the tests"),
    Requirement("curl", "curl", "puts an index into the tests' registry"),
    Requirement("ip", "iproute2", "makes the networks of the tests"),
    Requirement("zsh", "zsh", "completes command lines in the tests"),
    Requirement("fish", "fish", "completes command lines in the tests"),
    Requirement("openssl", "openssl", "makes the certificates of the tests"),
)


def package_of(program: str) -> str | None:
    """The package that provides *program*, if it is one of ours."""
    return next((need.package for need in REQUIREMENTS if need.program == program), None)


def missing(search_path: str, *, developer: bool = False) -> list[Requirement]:
    """The requirements of this user whose program is not on *search_path*; *developer*: those of the tests, too."""
    needs = (*REQUIREMENTS, *DEVELOPER) if developer else REQUIREMENTS
    wanted = [need for need in needs if need.root_needs_it or os.geteuid() != 0]
    return [need for need in wanted if shutil.which(need.program, path=search_path) is None]


def install_commands(needs: Iterable[Requirement]) -> list[list[str]]:
    """The commands that install *needs* here; empty when there is nothing to do or no apt on this host."""
    packages = sorted({need.package for need in needs})
    if not packages or not Path("/usr/bin/apt-get").exists():
        return []
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    return [
        [*prefix, "apt-get", "update"],
        [*prefix, "apt-get", "install", "--yes", "--no-install-recommends", *packages],
    ]
