"""Pulling: what the guest sends is staged beside the destination, then switched in."""

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path

from pyro_mcp.engine.workspace.destination import below_workspace, full, leads_outside
from pyro_mcp.engine.workspace.landing import Landing, landing
from pyro_mcp.engine.workspace.options import PullOptions, PullResult
from pyro_mcp.engine.workspace.source import Contents, shown
from pyro_mcp.errors import GuestProtocol, InvalidRequest, StorageFault
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.faults import AgentRefused
from pyro_mcp.guest.sync.records import Kind
from pyro_mcp.guest.sync.walk import Limits, Walk
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import storage
from pyro_mcp.host.progress import Progress

EXCHANGE = 2  # RENAME_EXCHANGE
NO_REPLACE = 1  # RENAME_NOREPLACE
AT_FDCWD = -100
NEW_DIRECTORY_MODE = 0o755


def pull(
    channels: ChannelOpener,
    source: str,
    destination: Path,
    *,
    options: PullOptions,
    progress: Progress,
    deadline: Deadline,
) -> PullResult:
    """Bring a file or a directory of the guest (``/workspace`` or below it) to *destination*, whole or not at all.

    A directory becomes *destination* itself, which must be absent or an empty directory; a file becomes *destination*,
    or goes into it if that is a directory. With ``options.replace`` what stands there makes room. Nothing outside
    *destination* is touched. Raises InvalidRequest, GuestProtocol, NoSpace, StorageFault, and what the link raises.
    """
    path = below_workspace(source, "source")
    target = Path(os.path.abspath(destination.expanduser()))  # noqa: PTH100 - as the user wrote it, links and all
    limits = Limits(options.max_entries, options.max_bytes)
    contents = Contents()
    with channels.open(deadline) as session:
        try:
            walk = Walk(session, path, contents=True, limits=limits, deadline=deadline)
            if walk.kind == "absent":
                raise InvalidRequest(f"there is no {full(path)} in the guest", remedy="Look at it with `ls` first.")
            if walk.kind == "file":
                target = _for_file(target, path)
            _check_target(target, options, directory=walk.kind == "directory")
            progress.phase("transfer", source=full(path))
            with landing(target.parent) as place:
                with storage(f"writing below {target.parent}"):
                    _receive(walk, place, contents, progress)
                    place.finish()
                if walk.changed:
                    contents.warn(f"{walk.changed} files changed in the guest while they were read")
                _switch(place, target, path, options, directory=walk.kind == "directory")
        except AgentRefused as refused:
            if refused.guest_code in ("bad_path", "no_such_path"):
                raise InvalidRequest(f"{full(path)} cannot be pulled: {refused.cause}") from refused
            raise
    return PullResult(
        mode="file" if walk.kind == "file" else "directory",
        source_path=full(path),
        destination=str(target),
        entry_count=contents.count,
        bytes_written=walk.bytes,
        warnings=contents.notes(),
    )


def _receive(walk: Walk, place: Landing, contents: Contents, progress: Progress) -> None:
    done = 0
    for record in walk.records():
        path = b""
        if record.kind is Kind.DATA or record.kind is Kind.HOLE:
            done += len(record.data) or record.size
            progress.advance(done)
        else:
            path = walk.path(record)
            if record.kind is Kind.OTHER:
                contents.warn(f"{shown(path)} was left out: it is no file, directory or link")
                continue
            contents.count += 1
            if record.kind is Kind.SYMLINK and (record.target.startswith(b"/") or leads_outside(path, record.target)):
                contents.warn(f"{shown(path)} is a symbolic link that leads out: {shown(record.target)}")
        place.take(record, path)


def _for_file(target: Path, path: bytes) -> Path:
    """Where a file goes: into *target* if that is a directory."""
    return target / os.fsdecode(path.rpartition(b"/")[2]) if target.is_dir() else target


def _check_target(target: Path, options: PullOptions, *, directory: bool) -> None:
    """Raise InvalidRequest unless *target* may be made, or replaced. A symbolic link there is not followed."""
    if not target.name or not target.parent.is_dir():
        raise InvalidRequest(f"{target.parent} is no directory", remedy="Make it first.")
    with storage(f"looking at {target}"):
        try:
            kind = target.lstat().st_mode
        except FileNotFoundError:
            return
        if directory and stat.S_ISDIR(kind) and not any(target.iterdir()):
            return
    if not options.replace:
        raise InvalidRequest(
            f"{target} is there already", remedy="Name another destination, or replace this one with --replace."
        )
    if stat.S_ISDIR(kind) and not directory:
        raise InvalidRequest(f"{target} is a directory, and a file would take its place", remedy="Remove it first.")


def _switch(place: Landing, target: Path, path: bytes, options: PullOptions, *, directory: bool) -> None:
    """Put what has come at *target* in one step; what stood there goes with the landing."""
    made = place.place
    if not directory:
        made = made / os.fsdecode(path.rpartition(b"/")[2])
        if not os.path.lexists(made):
            raise InvalidRequest(f"{full(path)} has just gone in the guest")
        if not stat.S_ISREG(made.lstat().st_mode):
            raise GuestProtocol("the guest sent something else than the file it announced")
    with storage(f"switching in {target}"):
        if directory:
            made.chmod(NEW_DIRECTORY_MODE)
        if _rename(made, target, NO_REPLACE):
            return
        if not options.replace:
            if directory:  # an empty directory makes room, in one step
                with contextlib.suppress(OSError):
                    made.rename(target)
                    return
            raise StorageFault(f"{target} has appeared meanwhile; nothing was changed")
        if not _rename(made, target, EXCHANGE):
            raise StorageFault(f"{target} could not be replaced; nothing was changed")


def _rename(old: Path, new: Path, flags: int) -> bool:
    """renameat2(2); ``False`` when *flags* do not allow it: *new* is there, or is not."""
    library = ctypes.CDLL(None, use_errno=True)
    done = library.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags))
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EEXIST, errno.ENOENT):
        return False
    raise OSError(number, os.strerror(number), str(new))
