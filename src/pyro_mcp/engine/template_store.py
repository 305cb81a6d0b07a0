"""Templates on disk: made under a lock, published in one step, verified before each use, bounded in size.

::

    <cache>/templates/<key>/                     a template: state.bin, memory.bin, scratch.ext4, template.json, used
    <cache>/templates/.partial-<key>-<random>/   one that is being made, owned by the lock's holder
    <cache>/templates/<key>.lock                 held while <key> is made or removed
    <cache>/templates/<key>.failed               it could not be made, or nothing could go on from it, and how often
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyro_mcp.drivers.base import Snapshot
from pyro_mcp.errors import PyroError
from pyro_mcp.host.files import private_directory, read_json, remove_tree, storage, write_json
from pyro_mcp.host.locks import try_lock
from pyro_mcp.model import TemplateRecord, new_token
from pyro_mcp.paths import Paths, TemplatePaths

GENERATION = 2
KEY = re.compile(r"[0-9a-f]{32}")
PARTIAL = re.compile(r"\.partial-([0-9a-f]{32})-[0-9a-f]{12}")
MIB = 1 << 20
# How long after a failure it is tried again; twice as long after each further one. A host on which no template can be
# made, or on which none works, is not kept busy trying.
AGAIN_SECONDS = 600.0
AGAIN_SECONDS_MOST = 86400.0
TIMES_MOST = 64
REASON_MOST = 1000
Stage = Literal["make", "resume"]


class _Failure(NamedTuple):
    """What is remembered of failures: how often in a row, and what went wrong last."""

    stage: Stage
    times: int
    reason: str

    @property
    def pause(self) -> float:
        """Seconds to wait. A template that does not work may be a damaged one: it is made again once, at once."""
        waits = self.times if self.stage == "make" else self.times - 1
        return min(AGAIN_SECONDS * 2 ** (waits - 1), AGAIN_SECONDS_MOST) if waits > 0 else 0.0


class Found(NamedTuple):
    """A template that was just verified."""

    key: str
    snapshot: Snapshot


class TemplateStore:
    """The templates of one user's cache, for any number of processes."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def find(self, key: str, layout: str) -> Found | None:
        """The template *key* if it is intact and of this *layout*; one that is not is removed. Counts as a use."""
        files = self._paths.template(key)
        record = _record(files)
        if record is None:
            if files.directory.exists():
                self.drop(key)
            return None
        if record.get("layout") != layout or record.get("files") != _stamps(files):
            self.drop(key)
            return None
        with contextlib.suppress(OSError):  # only the order of removal depends on it
            os.utime(files.used)
        return Found(key, snapshot_of(files, layout))

    def barred(self, key: str) -> str:
        """Why *key* should not be made now: it failed a short while ago. Empty: it may be tried."""
        failure = self._failure(key)
        try:
            age = abs(time.time() - self._paths.template_failure(key).stat().st_mtime)
        except OSError:
            return ""
        return failure.reason if age < failure.pause else ""

    def failed(self, key: str, stage: Stage, reason: str) -> None:
        """Remember that *key* could not be made, or that no machine could go on from it, and why."""
        times = self._failure(key).times + 1
        with contextlib.suppress(PyroError):
            write_json(
                self._paths.template_failure(key), {"stage": stage, "times": times, "reason": reason[:REASON_MOST]}
            )

    def proved(self, key: str) -> None:
        """A machine goes on from *key*: what failed before counts no more."""
        with contextlib.suppress(OSError):
            self._paths.template_failure(key).unlink(missing_ok=True)

    def _failure(self, key: str) -> "_Failure":
        try:
            known = read_json(self._paths.template_failure(key)) or {}
        except PyroError:
            known = {}
        times = known.get("times")
        return _Failure(
            "resume" if known.get("stage") == "resume" else "make",
            times if isinstance(times, int) and 0 < times < TIMES_MOST else 0,
            str(known.get("reason", "")) or "it failed a short while ago",
        )

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[TemplatePaths | None]:
        """A directory to make *key* in, gone afterwards unless it was published; ``None`` when another makes it."""
        private_directory(self._paths.cache)
        private_directory(self._paths.templates)
        lock = try_lock(self._paths.template_lock(key))
        if lock is None:
            yield None
            return
        try:
            self.sweep(but=key)
            self._sweep_partials_of(key)
            work = TemplatePaths(self._paths.templates / f".partial-{key}-{new_token()}")
            private_directory(work.directory)
            try:
                yield work
            finally:
                with contextlib.suppress(PyroError):  # the next maker sweeps
                    remove_tree(work.directory)
        finally:
            os.close(lock)

    def publish(self, key: str, work: TemplatePaths, layout: str, about: dict[str, Any]) -> Found:
        """Make *work* the template *key*. From here on nobody may write to its files. The lock is held."""
        target = self._paths.template(key)
        with storage(f"installing the template {target.directory}"):
            for path in (work.state, work.memory, work.scratch):
                _seal(path)
            work.used.touch(mode=0o600)
            record = {"generation": GENERATION, "layout": layout, "about": about, "files": _stamps(work)}
            write_json(work.record, {**record, "created_at": time.time()})
            remove_tree(target.directory)
            work.directory.rename(target.directory)
            _flush(self._paths.templates)
            if self._failure(key).stage == "make":  # that it can be resumed has still to be seen
                self._paths.template_failure(key).unlink(missing_ok=True)
        return Found(key, snapshot_of(target, layout))

    def drop(self, key: str) -> None:
        """Remove a template, whoever made it; machines that go on from it keep what they have open."""
        files = self._paths.template(key)
        # First out of sight, in one step: a reader finds all of a template or none.
        gone = files.directory.with_name(f".partial-{key}-{new_token()}")
        with contextlib.suppress(FileNotFoundError), storage(f"removing {files.directory}"):
            files.directory.rename(gone)
        remove_tree(gone)

    def records(self) -> list[TemplateRecord]:
        """All templates, the one used last first."""
        return sorted(map(self._public, self._keys()), key=lambda record: record["used_at"], reverse=True)

    def bound(self, most_mib: int, *, keep: str = "") -> list[str]:
        """Remove those not used for longest until the rest fits into *most_mib*; never *keep*. The keys that went."""
        gone = []
        total = 0
        for record in self.records():
            total += record["size_mib"]
            if total > most_mib and record["key"] != keep:
                self.drop(record["key"])
                total -= record["size_mib"]
                gone.append(record["key"])
        return gone

    def prune(self) -> list[TemplateRecord]:
        """Remove all templates and all leftovers but what is being made now; what went."""
        records = self.records()
        for record in records:
            self.drop(record["key"])
        self.sweep()
        for path in self._entries():
            if path.name.endswith(".failed"):
                path.unlink(missing_ok=True)
        return records

    def sweep(self, *, but: str = "") -> None:
        """Remove what killed makers left, and locks nobody needs. The caller holds the lock of *but*."""
        names = {path.name for path in self._entries()}
        left = {found[1] for name in names if (found := PARTIAL.fullmatch(name))}
        left |= {key for name in names if (key := name.removesuffix(".lock")) != name and key not in names}
        for key in left - {but}:
            lock = try_lock(self._paths.template_lock(key))
            if lock is None:
                continue
            try:
                self._sweep_partials_of(key)
                if not self._paths.template(key).directory.exists():
                    self._paths.template_lock(key).unlink(missing_ok=True)
            finally:
                os.close(lock)

    def _sweep_partials_of(self, key: str) -> None:
        for path in self._entries():
            found = PARTIAL.fullmatch(path.name)
            if found and found[1] == key:
                remove_tree(path)

    def _entries(self) -> list[Path]:
        with storage(f"reading {self._paths.templates}"), contextlib.suppress(FileNotFoundError):
            return list(self._paths.templates.iterdir())
        return []

    def _keys(self) -> list[str]:
        return [path.name for path in self._entries() if KEY.fullmatch(path.name)]

    def _public(self, key: str) -> TemplateRecord:
        files = self._paths.template(key)
        record = _record(files) or {}
        about = record.get("about")
        facts: dict[str, Any] = about if isinstance(about, dict) else {}
        try:
            used = files.used.stat().st_mtime
        except OSError:
            used = 0.0
        return {
            "key": key,
            "environment": str(facts.get("environment", "")),
            "driver": str(facts.get("driver", "")),
            "vcpu_count": int(facts.get("vcpu_count", 0)),
            "mem_mib": int(facts.get("mem_mib", 0)),
            "disk_mib": int(facts.get("disk_mib", 0)),
            "size_mib": -(-_allocated(files) // MIB),
            "created_at": float(record.get("created_at", 0.0)),
            "used_at": used,
            "intact": bool(record) and record.get("files") == _stamps(files),
        }


def snapshot_of(files: TemplatePaths, layout: str) -> Snapshot:
    """The template in the driver's terms."""
    return Snapshot(files.state, files.memory, files.scratch, layout)


def _record(files: TemplatePaths) -> dict[str, Any] | None:
    try:
        record = read_json(files.record)
    except PyroError:
        return None
    return record if record is not None and record.get("generation") == GENERATION else None


def _stamps(files: TemplatePaths) -> dict[str, list[int]] | None:
    """What tells, without reading it, that nobody wrote to a file: that changes its ctime, which cannot be set.

    ``None`` when a file is missing.
    """
    stamps = {}
    for path in (files.state, files.memory, files.scratch):
        try:
            status = path.lstat()
        except OSError:
            return None
        stamps[path.name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return stamps


def _allocated(files: TemplatePaths) -> int:
    """Bytes on the disk; sparse files count what they hold."""
    total = 0
    with contextlib.suppress(OSError):
        for path in files.directory.iterdir():
            total += path.lstat().st_blocks * 512
    return total


def _seal(path: Path) -> None:
    """Ours, read-only, and on the disk: after a power cut the record must not be truer than the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o444)  # the VMM's user may read it, through the descriptor it is given
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
