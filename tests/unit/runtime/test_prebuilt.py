"""A runtime from a bundle: used where it fits the agent, compared with its digests, and never in the way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.conftest import RELEASE, deb, elf, keep_kernel, kernel_files

from pyro_mcp.config import Settings, load
from pyro_mcp.errors import PyroError, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import PLATFORM, Paths
from pyro_mcp.runtime import Runtime, bundle, ensure, prebuilt
from pyro_mcp.runtime.agent import find_agent
from pyro_mcp.runtime.manifest import PARTS
from pyro_mcp.testing.environments import Listener

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def original(paths: Paths, settings: Settings, agent: Path) -> Runtime:
    """What was built where the archive is near."""
    keep_kernel(paths, deb(kernel_files()))
    return ensure(paths, settings, Listener(), Deadline.after(60), agent=agent)


@pytest.fixture
def packed(original: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle that was made of it, and that the user names."""
    root = tmp_path / "bundle"
    section = prebuilt.pack(original, root / PLATFORM / prebuilt.KEY)
    programs = {name: {"path": f"bin/{name}", "sha256": "0" * 64} for name in ("firecracker", "jailer")}
    write(root, {"binaries": programs, prebuilt.KEY: section})
    monkeypatch.setenv(bundle.VARIABLE, str(root))
    return root


def write(root: Path, manifest: dict[str, Any]) -> None:
    (root / PLATFORM / bundle.MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Paths:
    """Another user, who has nothing yet."""
    return Paths(tmp_path / "state2", tmp_path / "cache2", tmp_path / "environments2")


@pytest.fixture
def offline() -> Settings:
    """A host whose archive does not answer."""
    return load({"PYRO_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"})


def test_a_bundles_runtime_is_used_without_the_archive(
    packed: Path, original: Runtime, elsewhere: Paths, offline: Settings, agent: Path
) -> None:
    listener = Listener()
    runtime = ensure(elsewhere, offline, listener, Deadline.after(60), agent=agent)
    assert (runtime.digest, runtime.kernel_version) == (original.digest, RELEASE)
    assert listener.phases == ["runtime-build"]
    for name in PARTS:
        assert (runtime.kernel.parent / name).read_bytes() == (original.kernel.parent / name).read_bytes()
    shutil.rmtree(packed)  # it is a copy: the runtime lives on without the bundle
    again = ensure(elsewhere, offline, listener, Deadline.after(60), agent=agent)
    assert again == runtime


def test_a_bundle_of_another_agent_is_not_used(packed: Path, elsewhere: Paths, agent: Path) -> None:
    assert prebuilt.find(find_agent(agent)) is not None
    agent.write_bytes(elf(b"a newer agent"))
    assert prebuilt.find(find_agent(agent)) is None
    keep_kernel(elsewhere, deb(kernel_files()))
    runtime = ensure(elsewhere, load({}), Listener(), Deadline.after(60), agent=agent)
    assert b"a newer agent" in runtime.initramfs.read_bytes()


def test_a_kernel_that_was_fetched_goes_before_the_bundles(packed: Path, elsewhere: Paths, agent: Path) -> None:
    keep_kernel(elsewhere, deb({**kernel_files(), "./usr/share/doc/newer": b"!"}))
    runtime = ensure(elsewhere, load({}), Listener(), Deadline.after(60), agent=agent)
    bundled = prebuilt.find(find_agent(agent))
    assert bundled is not None
    assert runtime.manifest["inputs"] != bundled.inputs


def test_the_bundles_runtime_helps_out_when_the_archive_is_asked_in_vain(
    packed: Path, original: Runtime, elsewhere: Paths, offline: Settings, agent: Path
) -> None:
    listener = Listener()
    runtime = ensure(elsewhere, offline, listener, Deadline.after(60), agent=agent, refresh=True)
    assert runtime.digest == original.digest
    assert any(note.startswith("The kernel of the bundle, 6.1.99-1, is used: ") for note in listener.notes)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_differs_from_its_digest_is_refused(
    part: str, packed: Path, elsewhere: Paths, offline: Settings, agent: Path
) -> None:
    with (packed / PLATFORM / prebuilt.KEY / part).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(RuntimeBroken, match="has the wrong SHA-256"):
        ensure(elsewhere, offline, Listener(), Deadline.after(60), agent=agent)
    assert [path for path in elsewhere.runtimes.iterdir() if path.name.startswith(".partial")] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda section: section.clear(),
        lambda section: section.pop("inputs"),
        lambda section: section["inputs"].pop("kernel"),
        lambda section: section["kernel"].update(release="../x"),
        lambda section: section["kernel"].update(version=7),
        lambda section: section.update(modules=[]),
        lambda section: section["parts"].pop("vmlinux"),
        lambda section: section["parts"]["vmlinux"].update(sha256="abc"),
        lambda section: section["parts"].update(vmlinux=None),
    ],
    ids=range(9),
)
def test_a_manifest_that_is_not_understood_is_refused(change: Change, packed: Path, agent: Path) -> None:
    manifest = json.loads((packed / PLATFORM / bundle.MANIFEST).read_text())
    change(manifest[prebuilt.KEY])
    write(packed, manifest)
    with pytest.raises(PyroError, match="is damaged"):
        prebuilt.find(find_agent(agent))
