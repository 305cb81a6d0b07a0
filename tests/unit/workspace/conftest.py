"""The real agent, serving a directory of the host."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyro_mcp.engine.workspace import PushOptions, SyncResult, push
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.runtime.agent import AGENT

from ...local_agent import LocalAgent  # noqa: TID252 - the tests are no installed package

Push = Callable[..., SyncResult]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LocalAgent]:
    """An agent whose workspace is ``tmp_path/guest/workspace``; at the end nothing may be staged."""
    if not Path(os.environ.get("PYRO_TEST_AGENT", AGENT)).exists():
        pytest.skip("the agent is not compiled; run `make setup`")
    base = tmp_path / "guest"
    base.mkdir()
    with LocalAgent(base) as local:
        yield local
    assert local.staged() == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to push."""
    place = tmp_path / "source"
    place.mkdir()
    return place


@pytest.fixture
def send(agent: LocalAgent, source: Path) -> Push:
    """Push with options."""

    def do(what: Path = source, destination: str = "/workspace", **options: object) -> SyncResult:
        return push(
            agent,
            what,
            destination,
            options=PushOptions(**options),  # type: ignore[arg-type]
            progress=Silent(),
            deadline=Deadline.after(60),
        )

    return do


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All of a directory: kind, mode, content or target, and time of each entry."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)  # noqa: PTH115 - as it is
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (oct(status.st_mode), content, status.st_mtime_ns)
    return found
