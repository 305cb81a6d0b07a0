"""The runtime is made from the real Debian archive, end to end."""

import os
import shutil
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.errors import PyroError
from pyro_mcp.host.apt import sources_for
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import ensure, inspect, verify
from pyro_mcp.runtime.agent import AGENT

MINUTES = 10 * 60.0


def _prerequisite_missing() -> str:
    if not AGENT.exists():
        return "the agent is not built (make setup)"
    try:
        sources_for(mirror=load().debian_mirror)
    except PyroError as error:
        return error.cause
    return ""


pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(MINUTES),
    pytest.mark.skipif(bool(_prerequisite_missing()), reason=_prerequisite_missing()),
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    root = tmp_path_factory.mktemp("runtime")
    return Paths(root / "state", root / "cache", root / "environments")


def test_the_runtime_is_built_from_the_archive_and_stays(paths: Paths) -> None:
    runtime = ensure(paths, load(), Silent(), Deadline.after(MINUTES))
    assert runtime.kernel.read_bytes()[:4] == b"\x7fELF"
    assert runtime.kernel_version.endswith("-cloud-amd64")
    assert "virtio_ring" in runtime.manifest["modules"]["serial"]
    assert verify(paths) == []
    assert inspect(paths).state == "ready"
    assert ensure(paths, load(), Silent(), Deadline.after(MINUTES)) == runtime
    assert [path.name for path in paths.runtimes.glob(".partial-*")] == []


def test_asking_for_a_newer_kernel_keeps_the_newest(paths: Paths) -> None:
    first = ensure(paths, load(), Silent(), Deadline.after(MINUTES))
    package = next(paths.runtimes.glob("kernel-*.deb")).stat().st_ino
    assert ensure(paths, load(), Silent(), Deadline.after(MINUTES), refresh=True) == first
    assert next(paths.runtimes.glob("kernel-*.deb")).stat().st_ino == package


def test_another_agent_needs_no_archive(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure(paths, load(), Silent(), Deadline.after(MINUTES))
    agent = tmp_path / "pyro-agent"
    shutil.copy(AGENT, agent)
    with agent.open("ab") as stream:
        stream.write(b"\0")
    monkeypatch.setenv("PYRO_DEBIAN_MIRROR", f"file://{os.fspath(tmp_path)}/nowhere")
    second = ensure(paths, load(), Silent(), Deadline.after(MINUTES), agent=agent)
    assert second.digest != first.digest
    assert second.kernel.read_bytes() == first.kernel.read_bytes()
