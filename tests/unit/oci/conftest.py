"""Pulls from servers of the tests' own, without waiting where a user would wait."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.environments import Environments, Installed
from pyro_mcp.environments.catalog import CatalogEntry
from pyro_mcp.environments.oci.names import lock_of
from pyro_mcp.environments.oci.source import OciPuller
from pyro_mcp.environments.oci.transport import Tuning
from pyro_mcp.environments.oci.trust import Signatures
from pyro_mcp.environments.source import Made
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import Listener

QUICK = Tuning(connect_seconds=2, stall_seconds=0.3, attempts=3, first_pause=0.01, pause_most=2.0)


class Quick:
    """The registry as a source, with short patience."""

    title = "test registry"

    def __init__(
        self, paths: Paths, environ: dict[str, str], settings: dict[str, str], signatures: Signatures | None
    ) -> None:
        values, lock = load(settings), lock_of(paths, load(settings))
        self.puller = OciPuller(paths, values, lock, tuning=QUICK, environ=environ, signatures=signatures)

    def offers(self, entry: CatalogEntry) -> bool:
        return bool(entry.name)

    def make(self, entry: CatalogEntry, work: Path, progress: Progress, deadline: Deadline) -> Made:
        return self.puller.make(entry, work, progress, deadline)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def install(paths: Paths, listener: Listener, tmp_path: Path) -> Callable[..., Installed]:
    """Install an image from a server; *environ* is where credentials are looked for."""

    def do(
        name: str, environ: dict[str, str] | None = None, signatures: Signatures | None = None, **settings: str
    ) -> Installed:
        nothing = {"DOCKER_CONFIG": str(tmp_path / "no-docker")}
        source = Quick(paths, {**nothing, **(environ or {})}, settings, signatures)
        environments = Environments(paths, load(settings), sources=[source])
        return environments.pull(name, progress=listener, deadline=Deadline.after(60))

    return do


def nothing_installed(paths: Paths) -> bool:
    """Whether neither an environment nor an image is there, whole or half."""
    left = [*paths.installed.iterdir(), *paths.images.iterdir()] if paths.installed.exists() else []
    return not left
