"""The supplies: a read-only disk that brings Python packages and the parts of the inner guests into the lab.

::

    site/         Python packages
    cache/        pyro's cache: the runtime in use, the environment of the tests, Firecracker
    bundle/       the runtime bundle, when Firecracker comes from one
    mtimes.json   the times of the files of cache/ in nanoseconds, which squashfs does not keep
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from pyro_mcp.environments.bootstrap import PACK
from pyro_mcp.environments.installed import Installed
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, storage
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import bundle
from pyro_mcp.runtime.firecracker import Vmm
from pyro_mcp.runtime.manifest import INDEX, Runtime
from pyro_mcp.testing.lab.stale import drop_older

MTIMES = "mtimes.json"
CACHE = "cache"
BUNDLE = "bundle"


def contents(paths: Paths, runtime: Runtime, environment: Installed, vmm: Vmm, site: Path) -> dict[str, Path]:
    """The files of the disk: names there, and where they are here."""
    record = Path(environment.record["install_dir"])
    images = f"{CACHE}/environments/{paths.images.relative_to(paths.environments)}"
    found = {f"{images}/{environment.rootfs.name}": environment.rootfs}
    found |= dict(_tree(f"{CACHE}/environments/{record.relative_to(paths.environments)}", record))
    found |= dict(_tree(f"{CACHE}/runtime/{runtime.digest}", runtime.kernel.parent))
    found[f"{CACHE}/runtime/{INDEX}"] = paths.runtimes / INDEX
    named = bundle.named()
    if named is not None:
        found |= dict(_tree(BUNDLE, named.root))
    elif vmm.firecracker.is_relative_to(paths.cache):
        found |= {f"{CACHE}/{path.relative_to(paths.cache)}": path for path in (vmm.firecracker, vmm.jailer)}
    return found | dict(_tree("site", site))


def _tree(name: str, directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield f"{name}/{path.relative_to(directory).as_posix()}", path


def ensure_disk(paths: Paths, files: Mapping[str, Path], deadline: Deadline) -> Path:
    """The squashfs image with *files*, made unless there is one. Raises StorageFault, NoSpace or ProgramFailed."""
    with storage("looking at the supplies of the lab"):
        status = {name: path.stat() for name, path in sorted(files.items())}
        rows = [(name, entry.st_size, entry.st_mtime_ns, entry.st_mode) for name, entry in status.items()]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    image = private_directory(paths.lab) / f"supplies-{digest[:16]}.squashfs"
    if image.exists():
        return image
    mtimes = {
        PurePosixPath(name).relative_to(CACHE).as_posix(): entry.st_mtime_ns
        for name, entry in status.items()
        if name.startswith(f"{CACHE}/")
    }
    partial = image.with_name(f".partial-{image.name}")
    with storage(f"making {image}"):
        partial.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=paths.lab) as stream:
            write_tar(stream, files, {MTIMES: json.dumps(mtimes).encode()})
            stream.seek(0)
            proc.run(["sqfstar", *PACK, str(partial)], deadline, stdin=stream)
        partial.rename(image)
    drop_older(paths.lab, "supplies-*.squashfs")
    return image


def write_tar(stream: IO[bytes], files: Mapping[str, Path], made: Mapping[str, bytes] | None = None) -> None:
    """Write *files* and what is *made* up as a tar: everything root's, and readable by everybody."""
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for directory in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, path in sorted(files.items()):
            with path.open("rb") as source:
                entry = tar.gettarinfo(arcname=name, fileobj=source)
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                entry.mode = 0o755 if entry.mode & 0o100 else 0o644
                entry.type = tarfile.REGTYPE  # of two hard links both are files
                tar.addfile(entry, source)
        for name, data in (made or {}).items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
