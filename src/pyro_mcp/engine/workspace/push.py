"""Pushing: the source's changes are staged in the guest, verified, then switched in."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pyro_mcp.engine.workspace.destination import below_workspace, full, join
from pyro_mcp.engine.workspace.options import CHANGES_MOST, Change, PushOptions, SyncResult
from pyro_mcp.engine.workspace.plan import Plan, make_plan
from pyro_mcp.engine.workspace.source import Contents, Item, Source, digest, open_source
from pyro_mcp.engine.workspace.transfer import Transfer
from pyro_mcp.errors import InvalidRequest, PyroError, SyncConflict, WorkspaceFull
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.client import ChannelOpener
from pyro_mcp.guest.faults import AgentRefused, LinkLost
from pyro_mcp.guest.sync.stage import Stage, outcome
from pyro_mcp.guest.sync.walk import GuestEntry, Limits, Walk, digests, listing
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress

LISTED_MOST = 2_000_000  # entries in the guest, which may have made many more than were pushed; 0.4 KB each, here
SPACE_PER_ENTRY = 4096


def push(
    channels: ChannelOpener,
    source: Path,
    destination: str = "/workspace",
    *,
    options: PushOptions,
    progress: Progress,
    deadline: Deadline,
) -> SyncResult:
    """Bring a directory or an archive (.tar, .tar.gz, .tgz) to *destination* in the guest, whole or not at all.

    *destination* is ``/workspace`` or below it (relative: below it); it is made if it is not there. Another push to the
    same machine is waited for. Raises InvalidRequest (ArchiveRefused, SourceUnreadable, SyncConflict), SourceChanged,
    WorkspaceFull, Busy, and what the link raises; the tree is then as it was.
    """
    prefix = below_workspace(destination)
    with open_source(source, prefix, options) as opened:
        progress.phase("scan", source=str(opened.path))
        contents = opened.scan()
        work = _Push(channels, opened, contents, prefix, options, progress, deadline)
        try:
            plan = work.run()
        except AgentRefused as refused:
            raise _translated(refused) from refused
    return _result(opened, contents, prefix, plan, options)


class _Push:
    """One push, its source scanned."""

    def __init__(
        self,
        channels: ChannelOpener,
        source: Source,
        contents: Contents,
        prefix: bytes,
        options: PushOptions,
        progress: Progress,
        deadline: Deadline,
    ) -> None:
        self._channels = channels
        self._source = source
        self._items = contents.items
        self._prefix = prefix
        self._options = options
        self._progress = progress
        self._deadline = deadline

    def run(self) -> Plan:
        """Do it; what was done."""
        with self._channels.open(self._deadline) as session:
            stage = Stage(session, self._deadline)
            if self._options.dry_run:
                return self._plan(session)
            free = stage.begin(self._progress)
            plan = self._plan(session)
            if plan.empty:
                return plan  # the staging area goes with the session
            _check_space(plan, free)
            self._progress.phase("transfer", entries=plan.transferred_entries, bytes=plan.transferred_bytes)
            Transfer(stage, self._prefix, self._progress).send(self._source, self._items, plan)
            self._source.verify()
            self._progress.phase("commit")
            try:
                stage.commit()
            except LinkLost as lost:
                self._ask_outcome(stage, lost)
        return plan

    def _plan(self, session: Session) -> Plan:
        self._progress.phase("compare", entries=len(self._items))
        plan = make_plan(
            self._items,
            self._listing(session),
            delete=self._options.delete,
            by_content=self._source.mode == "tar_archive",  # times in archives are often made up: --mtime=@0
            protects=lambda path, directory: self._source.leaves_out(path, directory=directory),
            prefix=self._prefix,
        )
        if plan.doubtful:
            theirs = digests(session, [join(self._prefix, item.path) for item in plan.doubtful], self._deadline)
            known = dict(zip((item.path for item in plan.doubtful), theirs, strict=True))
            ours = {item.path: digest(pieces) for item, pieces in self._source.read(known)}
            plan.settle(lambda item: ours[item.path] == known[item.path])
        return plan

    def _listing(self, session: Session) -> dict[bytes, GuestEntry]:
        """What the guest has at the destination."""
        limits = Limits(entries=LISTED_MOST, bytes=0)
        walk = Walk(session, self._prefix, contents=False, limits=limits, deadline=self._deadline)
        found = listing(walk)
        if walk.kind == "file":
            raise SyncConflict(f"{full(self._prefix)} is a file in the guest, so nothing can be put below it")
        return found

    def _ask_outcome(self, stage: Stage, lost: LinkLost) -> None:
        """The answer was lost with the link: ask on another one."""
        with self._channels.open(self._deadline) as session:
            if outcome(session, stage.id, self._deadline) is None:
                raise lost


def _check_space(plan: Plan, free: int) -> None:
    """Raise WorkspaceFull before anything is sent when it cannot fit."""
    needed = sum(item.stored for item in plan.send) + SPACE_PER_ENTRY * plan.new_directories
    if needed > free:
        raise WorkspaceFull(f"{needed} bytes are to be pushed, and the guest's disk has {free} free")


def _translated(refused: AgentRefused) -> PyroError:
    """The guest's refusals that have a cause the user can do something about."""
    if refused.guest_code == "no_space":
        return WorkspaceFull(f"the guest's disk is full; its files are as they were ({refused.cause})")
    if refused.guest_code == "conflict":
        return SyncConflict(refused.cause)
    if refused.guest_code == "bad_path":
        return InvalidRequest(
            f"the destination cannot be used: {refused.cause}",
            remedy="Give a directory that is reached without symbolic links.",
        )
    return refused


def _result(source: Source, contents: Contents, prefix: bytes, plan: Plan, options: PushOptions) -> SyncResult:
    return SyncResult(
        mode=source.mode,
        source_path=str(source.path),
        destination=full(prefix),
        entry_count=contents.count,
        bytes_written=contents.bytes,
        transferred_entries=plan.transferred_entries,
        transferred_bytes=plan.transferred_bytes,
        updated_entries=plan.updated_entries,
        deleted_entries=plan.removed_entries,
        unchanged_entries=contents.count - plan.transferred_entries - plan.updated_entries,
        dry_run=options.dry_run,
        changes=tuple(islice(_changes(plan, prefix), CHANGES_MOST)),
        warnings=contents.notes(),
    )


def _changes(plan: Plan, prefix: bytes) -> Iterator[Change]:
    def path(item: Item | bytes) -> str:
        return os.fsdecode(join(prefix, item if isinstance(item, bytes) else item.path))

    for gone in plan.remove:
        yield Change("delete", path(gone))
    for item in plan.changed_directories:
        yield Change("create" if item.path in plan.fresh else "attributes", path(item))
    for item in plan.send:
        yield Change("create" if item.path in plan.fresh else "replace", path(item))
    for item in plan.attributes:
        yield Change("attributes", path(item))
