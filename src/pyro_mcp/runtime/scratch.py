"""Empty scratch disks: the ext4 images that machines start from."""

import contextlib
import os
from pathlib import Path

from pyro_mcp.errors import StorageFault
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, storage
from pyro_mcp.host.locks import locked
from pyro_mcp.model import DISK_MIB_LIMITS, check_between, new_token
from pyro_mcp.paths import Paths

GENERATION = 1
LOCK = "lock"
PARTIAL = ".partial-"
FORMAT_SECONDS = 60.0
# Fixed, so that the same size gives the same bytes on every host.
UUID = "7079726f-0000-4000-8000-000000000001"
EPOCH = "1"  # 0 would stand for "unknown"
# All that matters is said here, so that the host's mke2fs.conf cannot change it. uninit_bg is what marks
# group tables.
FEATURES = (
    "sparse_super,large_file,filetype,dir_index,ext_attr,extent,flex_bg,huge_file,uninit_bg,dir_nlink,extra_isize"
)
# Both names of the time: e2fsprogs knows the second since 1.47.1.
ENVIRONMENT = {"E2FSPROGS_FAKE_TIME": EPOCH, "SOURCE_DATE_EPOCH": EPOCH, "MKE2FS_CONFIG": "/dev/null"}
MAGIC_AT = 0x438
MAGIC = b"\x53\xef"


def empty_scratch(paths: Paths, mib: int, deadline: Deadline) -> Path:
    """A sparse, formatted, empty ext4 image of *mib* MiB, to be copied with its holes, never to be written.

    Raises InvalidRequest for a size outside the limits, ProgramMissing or ProgramFailed from mke2fs,
    StorageFault or NoSpace.
    """
    check_between("disk_mib", mib, DISK_MIB_LIMITS)
    path = paths.scratch_images / f"empty-{GENERATION}-{mib}.ext4"
    if _intact(path, mib):
        return path
    private_directory(paths.cache)
    private_directory(paths.scratch_images)
    with locked(paths.scratch_images / LOCK, deadline):
        if not _intact(path, mib):
            _make(path, mib, deadline.sooner(FORMAT_SECONDS))
    return path


def _intact(path: Path, mib: int) -> bool:
    """Whether the image has its length and an ext4 superblock."""
    with storage(f"reading {path}"), contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == mib << 20:
            return os.pread(stream.fileno(), 2, MAGIC_AT) == MAGIC
    return False


def _make(path: Path, mib: int, deadline: Deadline) -> None:
    """Format a new image and give it its name; remove what killed makers left (the lock is held)."""
    with storage(f"making the scratch disk {path}"):
        for left in path.parent.glob(f"{PARTIAL}*"):
            left.unlink(missing_ok=True)
        partial = path.parent / f"{PARTIAL}{new_token()}"
        try:
            with partial.open("xb") as stream:
                os.fchmod(stream.fileno(), 0o600)
                os.ftruncate(stream.fileno(), mib << 20)
            _format(partial, deadline)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            if not _intact(partial, mib):
                raise StorageFault(f"mke2fs made no ext4 filesystem of {mib} MiB")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _format(image: Path, deadline: Deadline) -> None:
    """Run mke2fs(8).

    No journal and no checksums of metadata: the disk does not outlive a crash of its machine. ``discard`` on
    a fresh sparse file writes nothing and lets mke2fs mark the inode tables as zeroed; without that mark the
    guest's kernel zeroes them in the background, and the sparse file grows.
    """
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", f"none,{FEATURES}", "-b", "4096", "-I", "256"]
    argv += ["-i", "16384", "-m", "0", "-U", UUID, "-E"]
    argv += [f"discard,lazy_itable_init=1,root_owner=0:0,hash_seed={UUID}", str(image)]
    proc.run(argv, deadline, env=ENVIRONMENT)
