"""Pyro's cache in the lab: copied, and taken for installed there."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pyro_mcp.host.files import write_json
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build
from pyro_mcp.runtime.agent import agent_identity
from pyro_mcp.runtime.manifest import INDEX, MANIFEST, PARTS, digest_of, part_record
from pyro_mcp.runtime.recipe import RECIPE
from pyro_mcp.testing.lab.inside import settle


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "pyro-agent"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    return path


@pytest.fixture
def supplies(tmp_path: Path, agent: Path) -> Path:
    """A runtime as another host has it, brought by a disk that keeps no nanoseconds."""
    inputs = {"agent": "one"}
    root = tmp_path / "supplies"
    runtime = root / "cache" / "runtime" / digest_of(inputs)
    runtime.mkdir(parents=True)
    for part in PARTS:
        (runtime / part).write_text(part)
    parts = {part: part_record(runtime / part) for part in PARTS}
    kernel = {"release": "6.1", "package": "linux", "version": "1"}
    write_json(runtime / MANIFEST, {"digest": runtime.name, "inputs": inputs, "kernel": kernel, "parts": parts})
    of = {"path": str(agent), **asdict(replace(agent_identity(agent), inode=1))}
    write_json(runtime.parent / INDEX, {"recipe": RECIPE, "digest": runtime.name, "agent": of})
    (root / "cache" / "environments").mkdir()
    (root / "cache" / "environments" / "image").write_text("a root filesystem")
    files = [path for path in root.rglob("*") if path.is_file()]
    mtimes = {path.relative_to(root / "cache").as_posix(): path.stat().st_mtime_ns for path in files}
    (root / "mtimes.json").write_text(json.dumps(mtimes))
    for path in files:
        os.utime(path, (1, 1))
    return root


def test_a_cache_that_came_along_counts_as_installed(supplies: Path, paths: Paths, agent: Path) -> None:
    settle(supplies, paths, agent)
    report = build.inspect(paths, agent=agent)
    assert (report.state, report.problems) == ("ready", ())
    wanted = json.loads((supplies / "mtimes.json").read_text())["environments/image"]
    assert (paths.cache / "environments" / "image").stat().st_mtime_ns == wanted


def test_settling_again_copies_only_what_is_new(supplies: Path, paths: Paths, agent: Path) -> None:
    settle(supplies, paths, agent)
    kernel = next(paths.runtimes.glob(f"*/{PARTS[0]}"))
    before = kernel.stat().st_ino
    moved = shutil.copy(agent, agent.with_name("moved"))
    settle(supplies, paths, Path(moved))
    assert kernel.stat().st_ino == before
    assert build.inspect(paths, agent=Path(moved)).state == "ready"


def test_supplies_without_a_runtime_are_an_error(tmp_path: Path, paths: Paths, agent: Path) -> None:
    (tmp_path / "mtimes.json").write_text("{}")
    with pytest.raises(ValueError, match="no runtime"):
        settle(tmp_path, paths, agent)
