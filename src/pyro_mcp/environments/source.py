"""Where an environment can come from: sources, tried in order."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci.config import ImageConfig
from pyro_mcp.errors import EnvironmentFault, NoSpace, OperationFailed, ProgramFailed, ProgramMissing
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import free_bytes
from pyro_mcp.host.progress import Progress

MIB = 1 << 20
# After these another source may do better; a full disk, an interruption or a bug in pyro would hit it just as well.
PASSED_OVER = (EnvironmentFault, ProgramMissing, ProgramFailed)


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A root filesystem just made: the squashfs *image*, where it came from, and its packages with their versions.

    One that was an image of a registry has the *manifest_digest* of that, and may have the *config* of its commands.
    """

    image: Path
    source: str
    packages: dict[str, str]
    manifest_digest: str = ""
    config: ImageConfig | None = None


class Source(Protocol):
    """One way to make an environment."""

    @property
    def title(self) -> str:
        """What a person calls it, for instance ``Debian bootstrap``."""

    def offers(self, entry: CatalogEntry) -> bool:
        """Whether this source can be asked for *entry* at all. Cheap, and touches no network."""

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        """Make the image of *entry* inside the empty private directory *work*, which the caller removes.

        Raises EnvironmentFault, ProgramMissing or ProgramFailed when another source may be tried; NoSpace, StorageFault
        and Interrupted end the installation.
        """


def make_from_first(
    sources: Sequence[Source], entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline
) -> Made:
    """The image of *entry* from the first of *sources* that works, each in a directory of its own.

    A source that failed is told of in a note. Raises its error when it was the only one, else EnvironmentFault with
    every cause.
    """
    asked = [source for source in sources if source.offers(entry)]
    failures: list[tuple[Source, OperationFailed]] = []
    for number, source in enumerate(asked):
        place = work / f"source-{number}"
        place.mkdir(mode=0o700)
        try:
            return source.make(entry, place, progress, deadline)
        except PASSED_OVER as error:
            if deadline.passed:
                raise
            failures.append((source, error))
            if number + 1 < len(asked):
                progress.note(f"{source.title} failed: {error}; trying {asked[number + 1].title}")
    if len(failures) == 1:
        raise failures[0][1]
    raise EnvironmentFault(
        f"no source of {entry.name} worked" if failures else f"there is no source of {entry.name}",
        remedy=failures[-1][1].remedy if failures else None,
        details=[line for source, error in failures for line in (f"{source.title}: {error}", *error.details)],
    )


def require_space(directory: Path, mib: int, name: str) -> None:
    """Raise NoSpace unless the filesystem of *directory* has *mib* MiB free."""
    free = free_bytes(directory) // MIB
    if free < mib:
        place = next(path for path in (directory, *directory.parents) if path.is_mount())
        raise NoSpace(f"installing {name} needs about {mib} MiB on {place}, and {free} MiB are free")
