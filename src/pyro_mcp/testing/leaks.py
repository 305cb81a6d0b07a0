"""What a test session may not leave behind: processes that hold its files, mounts, network devices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Baseline:
    """The mounts and network devices of this host before a session that keeps its files below *roots*."""

    roots: tuple[str, ...]
    mounts: frozenset[str]
    devices: frozenset[str]
    holders: frozenset[str]

    @classmethod
    def take(cls, roots: Sequence[Path]) -> "Baseline":
        """Look now."""
        places = tuple(f"{root.resolve()}/" for root in roots)
        return cls(places, _mounts(), _devices(), frozenset(_holders(places)))

    def leaks(self) -> list[str]:
        """What is there now and should not be."""
        new = [*(_mounts() - self.mounts), *(_devices() - self.devices)]
        return sorted([*new, *(frozenset(_holders(self.roots)) - self.holders)])


def _mounts() -> frozenset[str]:
    return frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _devices() -> frozenset[str]:
    return frozenset(path.name for path in Path("/sys/class/net").iterdir())


def _holders(roots: tuple[str, ...]) -> Iterator[str]:
    """``pid command line`` of every other process that has a file below one of *roots* open, or works there."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or entry.resolve() == Path("/proc/self").resolve():
            continue
        if any(target.startswith(roots) for target in _targets(entry)):
            yield f"{entry.name} {_command(entry)}"


def _targets(process: Path) -> Iterator[str]:
    """What the descriptors and the directories of *process* point to, as far as we may look."""
    try:
        links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
    except OSError:
        return
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:  # closed meanwhile, or another user's
            continue


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "(ended)"
