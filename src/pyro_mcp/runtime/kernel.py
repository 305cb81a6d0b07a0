"""Debian's kernel package: fetched once, kept as it came, opened when a runtime is built."""

import contextlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pyro_mcp.config import Settings
from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host import apt, proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, read_json, sha256_file, storage, write_json
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.runtime.manifest import DIGEST
from pyro_mcp.runtime.modules import MODULE_MOST, Module, builtin_names, module_name, parse
from pyro_mcp.runtime.vmlinux import IMAGE_MOST

METAPACKAGE = "linux-image-cloud-amd64"
CHOICE = "kernel.json"
IMAGE = re.compile(r"(?:\./)?boot/vmlinuz-([A-Za-z0-9][A-Za-z0-9.+~_-]{0,63})")
# Debian moves /lib below /usr; both are taken.
MODULES = re.compile(r"(?:\./)?(?:usr/)?lib/modules/([^/]+)/(?:[^/]+/)*([^/]+)")
MEMBERS_MOST = 100_000


@dataclass(frozen=True, slots=True)
class KernelPackage:
    """A package file that was checked against its digest."""

    path: Path
    package: str
    version: str
    sha256: str

    @property
    def described(self) -> dict[str, str]:
        """What records say of it."""
        return {"package": self.package, "version": self.version, "sha256": self.sha256}


def chosen(paths: Paths) -> KernelPackage | None:
    """The package that was kept, compared with its digest; ``None`` when there is none that is intact."""
    record = read_json(paths.runtimes / CHOICE) or {}
    values = [record.get(name) for name in ("package", "version", "sha256")]
    if not all(isinstance(value, str) for value in values) or not DIGEST.fullmatch(str(record.get("sha256"))):
        return None
    package, version, sha256 = (str(value) for value in values)
    path = _file(paths, sha256)
    if not path.is_file() or sha256_file(path) != sha256:
        return None
    return KernelPackage(path, package, version, sha256)


def fetch(paths: Paths, settings: Settings, work: Path, progress: Progress, deadline: Deadline) -> KernelPackage:
    """The newest kernel of the archive, fetched unless it is here; *work* is an empty directory for apt."""
    archive = apt.Archive.open(work / "apt", apt.sources_for(mirror=settings.debian_mirror), deadline, progress)
    archive.update()
    present = chosen(paths)
    if present is not None and present.sha256 == archive.resolve(METAPACKAGE).sha256:
        return present
    got = archive.download(METAPACKAGE, private_directory(work / "download"))
    return keep(paths, got.path, package=got.package, version=got.version, sha256=got.sha256)


def keep(paths: Paths, file: Path, *, package: str, version: str, sha256: str) -> KernelPackage:
    """Move *file* (on the same filesystem) to its place and make it the only one. Needs the runtime lock."""
    found = KernelPackage(_file(paths, sha256), package, version, sha256)
    with storage(f"keeping the kernel package in {paths.runtimes}"):
        file.replace(found.path)
        write_json(paths.runtimes / CHOICE, found.described)
        for other in paths.runtimes.glob("kernel-*.deb"):
            if other != found.path:
                other.unlink(missing_ok=True)
    return found


def _file(paths: Paths, sha256: str) -> Path:
    return paths.runtimes / f"kernel-{sha256}.deb"


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """What a kernel package holds. *release* is what uname(1) -r will say."""

    release: str
    builtin: frozenset[str]
    _tar: tarfile.TarFile
    _image: tarfile.TarInfo
    _modules: dict[str, tarfile.TarInfo] = field(default_factory=dict)

    def image(self) -> bytes:
        """The bzImage."""
        return _content(self._tar, self._image, IMAGE_MOST)

    def module(self, name: str) -> Module | None:
        """The module *name*; ``None`` when the package has none."""
        member = self._modules.get(name)
        return None if member is None else parse(Path(member.name).name, _content(self._tar, member, MODULE_MOST))


@contextlib.contextmanager
def opened(package: Path, work: Path, deadline: Deadline) -> Iterator[KernelFiles]:
    """The files of a kernel package, none unpacked by its own name. *work* takes a temporary file."""
    unpacked = work / "data.tar"
    with storage(f"unpacking {package}"), unpacked.open("x+b") as stream:
        unpacked.unlink()
        proc.run(["dpkg-deb", "--fsys-tarfile", str(package)], deadline, stdout=stream)
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                yield _listed(tar)
        except tarfile.TarError as error:
            raise RuntimeBroken(f"the kernel package is damaged: {error}") from error


def _listed(tar: tarfile.TarFile) -> KernelFiles:
    images: dict[str, tarfile.TarInfo] = {}
    modules: dict[str, dict[str, tarfile.TarInfo]] = {}
    builtin: dict[str, tarfile.TarInfo] = {}
    for number, member in enumerate(tar):
        if number > MEMBERS_MOST:
            raise RuntimeBroken("the kernel package has too many files")
        if not member.isfile():
            continue
        if image := IMAGE.fullmatch(member.name):
            images[image[1]] = member
        elif place := MODULES.fullmatch(member.name):
            release, file = place.groups()
            if file == "modules.builtin":
                builtin[release] = member
            elif name := module_name(file):
                modules.setdefault(release, {})[name] = member
    if len(images) != 1:
        raise RuntimeBroken(f"the kernel package has {len(images)} kernel images instead of one")
    ((release, image_member),) = images.items()
    names = (
        builtin_names(_content(tar, builtin[release], MODULE_MOST).decode(errors="replace"))
        if release in builtin
        else frozenset[str]()
    )
    return KernelFiles(release, names, tar, image_member, modules.get(release, {}))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    stream = tar.extractfile(member)
    if stream is None or member.size > most:
        raise RuntimeBroken(f"the kernel package's file {member.name!r:.120} is not acceptable")
    with stream:
        return stream.read()
