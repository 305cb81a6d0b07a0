"""What each version of Firecracker can do, as data: an unknown key in a request is refused by it with a 400.

Sources: Firecracker's CHANGELOG.md, docs/RELEASE_POLICY.md, ``SNAPSHOT_VERSION`` in src/vmm/src/persist.rs and
src/firecracker/swagger/firecracker.yaml, each at the version's tag. ``firecracker --version`` decides; never a name.
"""

import re
from dataclasses import dataclass
from typing import Literal

from pyro_mcp.errors import RuntimeBroken

Version = tuple[int, int, int]

PINNED: Version = (1, 16, 1)
OLDEST: Version = (1, 12, 1)
# Releases from which on a fix is in: below the pair's second member in the same minor version it is not.
CLOCK_REALTIME = ((1, 14, 4), (1, 15, 1))
JAILER_SYMLINK_FIX = ((1, 13, 2), (1, 14, 1))  # CVE-2026-1386
OLDEST_SUPPORTED: Version = (1, 15, 0)
SNAPSHOT_FORMATS: dict[tuple[int, int], int] = {(1, 12): 6, (1, 13): 8, (1, 14): 8, (1, 15): 9, (1, 16): 10}
REFUSED: dict[Version, str] = {
    (1, 16, 0): "its vsock is dead after a restore (fixed in 1.16.1)",
}
LINE = re.compile(r"(?:Firecracker|Jailer) v([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
REMEDY = f"Run `pyro runtime install`, which fetches {'.'.join(map(str, PINNED))}."


@dataclass(frozen=True, slots=True)
class VmmCapabilities:
    """What one version understands.

    *track_dirty_key* is the name of that switch in ``/snapshot/load``. *bare_pause*: a machine may be paused and
    resumed without a snapshot in between. *snapshot_format* ``None``: not known, so snapshots are not shared.
    """

    version: Version
    vsock_override: bool
    clock_realtime: bool
    track_dirty_key: Literal["enable_diff_snapshots", "track_dirty_pages"]
    snapshot_format: int | None
    free_page_reporting: bool
    bare_pause: bool
    entropy: bool = True  # /entropy came with 1.5
    balloon: bool = True  # /balloon came with 0.24

    @property
    def text(self) -> str:
        """The version as people write it."""
        return version_text(self.version)


def version_text(version: Version) -> str:
    """``1.16.1``."""
    return ".".join(map(str, version))


def parse_version(output: str) -> Version:
    """The version in what ``--version`` prints; raises RuntimeBroken."""
    match = LINE.search(output)
    if match is None:
        raise RuntimeBroken(f"this is not Firecracker: its --version says {output.strip()!r:.80}", remedy=REMEDY)
    return int(match[1]), int(match[2]), int(match[3])


def capabilities_of(version: Version) -> VmmCapabilities:
    """The row of *version*; raises RuntimeBroken for one that must not be used."""
    if version < OLDEST:
        raise RuntimeBroken(
            f"Firecracker {version_text(version)} is too old; {version_text(OLDEST)} is the oldest that works",
            remedy=REMEDY,
        )
    if version in REFUSED:
        raise RuntimeBroken(f"Firecracker {version_text(version)} is refused: {REFUSED[version]}", remedy=REMEDY)
    minor = version[:2]
    return VmmCapabilities(
        version=version,
        vsock_override=minor >= (1, 16),
        clock_realtime=_fixed_in(version, CLOCK_REALTIME),
        track_dirty_key="track_dirty_pages" if minor >= (1, 13) else "enable_diff_snapshots",
        snapshot_format=SNAPSHOT_FORMATS.get(minor),
        free_page_reporting=minor >= (1, 14),
        # 1.16: without a snapshot in between, host-to-guest traffic stays blocked after the resume (#6100).
        bare_pause=minor != (1, 16),
    )


def warnings_about(version: Version) -> tuple[str, ...]:
    """What doctor says about an accepted version."""
    lines = []
    if version < OLDEST_SUPPORTED:
        lines.append(f"Firecracker {version_text(version)} is out of support (since 2025-12-17 for 1.12)")
    if not _fixed_in(version, JAILER_SYMLINK_FIX):
        lines.append(
            f"the jailer of Firecracker {version_text(version)} has CVE-2026-1386 (symlinks in the chroot directory; "
            "pyro gives it a fresh tmpfs that nobody else can write to)"
        )
    return tuple(lines)


def _fixed_in(version: Version, releases: tuple[Version, ...]) -> bool:
    """Whether *version* has a fix that came with *releases*, the first of each minor version that got it."""
    for release in releases:
        if version[:2] == release[:2]:
            return version >= release
    return version[:2] > releases[-1][:2]
