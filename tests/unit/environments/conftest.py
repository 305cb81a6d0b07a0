"""Environments in an empty cache, made by sources that need no network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.environments import Environments
from pyro_mcp.environments.source import Source
from pyro_mcp.paths import Paths
from pyro_mcp.testing.environments import Listener

Make = Callable[..., Environments]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def environments_of(paths: Paths) -> Make:
    def make(*sources: Source) -> Environments:
        return Environments(paths, load({}), sources=sources)

    return make
