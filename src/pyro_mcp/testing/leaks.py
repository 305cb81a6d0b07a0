"""What a test session may not leave behind: processes that hold its files, mounts, network devices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyro_mcp.drivers.firecracker.cgroups import PARENT, ROOT
from pyro_mcp.host.processes import ProcessId


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


@dataclass(frozen=True, slots=True)
class Everything:
    """The programs, mounts, network devices and cgroups of a whole host, for one on which nobody else works."""

    programs: frozenset[ProcessId]
    mounts: frozenset[str]
    devices: frozenset[str]
    cgroups: frozenset[str]

    @classmethod
    def now(cls) -> "Everything":
        """Look now."""
        cgroups = frozenset(str(path) for path in ROOT.glob(f"**/{PARENT}/*/"))
        return cls(frozenset(_programs()), _mounts(), _devices(), cgroups)

    def beyond(self, before: "Everything") -> list[str]:
        """What is here and was not *before*."""
        new = self.programs - before.programs
        programs = [f"{one.pid} {_command(Path(f'/proc/{one.pid}'))}" for one in new if one.alive]
        others = (self.mounts - before.mounts, self.devices - before.devices, self.cgroups - before.cgroups)
        return sorted([*programs, *frozenset.union(*others)])


def _programs() -> Iterator[ProcessId]:
    """Every process that runs a program: the kernel's own threads, and what has ended, have no command line."""
    for entry in Path("/proc").iterdir():
        found = ProcessId.of(int(entry.name)) if entry.name.isdigit() else None
        if found is not None and _command(entry):
            yield found


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
    except OSError:  # it has ended
        return ""
