"""The runtime is built once, used while it is intact, and never used when it is not."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
from tests.unit.runtime.conftest import RELEASE, SMALL_KERNEL, deb, elf, keep_kernel, kernel_files

import pyro_mcp
from pyro_mcp.config import Settings
from pyro_mcp.errors import EnvironmentFault, ProgramFailed, RuntimeBroken
from pyro_mcp.host import locks
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import Runtime, ensure, inspect, verify
from pyro_mcp.runtime.make import PARTIAL
from pyro_mcp.runtime.manifest import PARTS, digest_of

pytestmark = pytest.mark.usefixtures("kernel_kept")


class Told(Silent):
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, **_fields: object) -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def told() -> Told:
    return Told()


def made(paths: Paths, settings: Settings, agent: Path, progress: Told | None = None) -> Runtime:
    return ensure(paths, settings, progress or Told(), Deadline.after(60), agent=agent)


def test_the_first_use_builds_all_parts_without_network(paths: Paths, settings: Settings, agent: Path) -> None:
    runtime = made(paths, settings, agent)
    assert runtime.kernel.read_bytes() == SMALL_KERNEL
    assert runtime.kernel_version == RELEASE
    assert agent.read_bytes() in runtime.initramfs.read_bytes()
    assert b"virtio_ring.ko\nvirtio.ko\nvirtio_mmio.ko\n" in runtime.initramfs.read_bytes()
    assert b"vmw_vsock_virtio_transport.ko\n" in runtime.initramfs_vsock.read_bytes()
    assert runtime.agent == agent
    assert runtime.digest == runtime.kernel.parent.name == digest_of(runtime.manifest["inputs"])


def test_the_second_use_only_looks(paths: Paths, settings: Settings, agent: Path, told: Told) -> None:
    first = made(paths, settings, agent)
    paths.runtime_lock.unlink()
    assert made(paths, settings, agent, told) == first
    assert told.phases == []
    assert not paths.runtime_lock.exists()


def test_files_can_be_opened_by_others_but_not_found(paths: Paths, settings: Settings, agent: Path) -> None:
    runtime = made(paths, settings, agent)
    for name in PARTS:
        assert stat.S_IMODE((runtime.kernel.parent / name).stat().st_mode) == 0o644
    for directory in (paths.cache, paths.runtimes, runtime.kernel.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_same_input_gives_the_same_bytes(paths: Paths, settings: Settings, agent: Path, tmp_path: Path) -> None:
    other = Paths(tmp_path / "state2", tmp_path / "cache2", tmp_path / "environments2")
    keep_kernel(other, deb(kernel_files()))
    first, second = made(paths, settings, agent), made(other, settings, agent)
    assert first.digest == second.digest
    for name in PARTS:
        assert (first.kernel.parent / name).read_bytes() == (second.kernel.parent / name).read_bytes()


def test_another_agent_makes_another_runtime(paths: Paths, settings: Settings, agent: Path, told: Told) -> None:
    first = made(paths, settings, agent)
    agent.write_bytes(elf(b"a newer agent"))
    second = made(paths, settings, agent, told)
    assert second.digest != first.digest
    assert b"a newer agent" in second.initramfs.read_bytes()
    assert told.phases == ["runtime-build"]


def test_an_agent_that_was_only_touched_builds_nothing(
    paths: Paths, settings: Settings, agent: Path, told: Told
) -> None:
    first = made(paths, settings, agent)
    os.utime(agent, (1, 1))
    assert made(paths, settings, agent, told) == first
    assert told.phases == []


def test_the_runtime_before_stays_and_older_ones_go(paths: Paths, settings: Settings, agent: Path) -> None:
    runtimes = []
    for number in range(4):
        agent.write_bytes(elf(b"agent %d" % number))
        runtimes.append(made(paths, settings, agent))
    assert [runtime.kernel.exists() for runtime in runtimes] == [False, False, True, True]


@pytest.mark.parametrize("part", [*PARTS, "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "cut short", "other bytes", "empty"])
def test_a_damaged_part_is_made_again_and_never_used(
    paths: Paths, settings: Settings, agent: Path, told: Told, part: str, damage: str
) -> None:
    runtime = made(paths, settings, agent)
    intact = {name: (runtime.kernel.parent / name).read_bytes() for name in PARTS}
    victim = runtime.kernel.parent / part
    data = victim.read_bytes()
    match damage:
        case "gone":
            victim.unlink()
        case "cut short":
            os.truncate(victim, len(data) // 2)
        case "other bytes":
            victim.write_bytes(bytes(len(data)))
        case "empty":
            os.truncate(victim, 0)
    assert inspect(paths, agent=agent).state == "damaged"
    assert verify(paths) != []
    again = made(paths, settings, agent, told)
    assert {name: (again.kernel.parent / name).read_bytes() for name in PARTS} == intact
    assert len(told.notes) == 1
    assert "built again" in told.notes[0]
    assert verify(paths) == []


def test_damage_that_keeps_size_and_time_is_found_by_a_full_check(
    paths: Paths, settings: Settings, agent: Path
) -> None:
    runtime = made(paths, settings, agent)
    status = runtime.kernel.stat()
    with runtime.kernel.open("r+b") as stream:
        stream.write(b"\x7fELF\x02\x01\x02")
    os.utime(runtime.kernel, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert verify(paths, full=False) == []
    assert "recorded digest" in verify(paths)[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"digest": 5}', '{"digest": "../../etc"}', "\xff"],
)
def test_a_damaged_index_is_written_anew(paths: Paths, settings: Settings, agent: Path, text: str) -> None:
    first = made(paths, settings, agent)
    (paths.runtimes / "current.json").write_bytes(text.encode("latin-1"))
    assert inspect(paths, agent=agent).state == "absent"
    assert made(paths, settings, agent) == first
    assert inspect(paths, agent=agent).state == "ready"


@pytest.mark.parametrize(
    "key", ["digest", "inputs", "kernel", "parts", "parts/vmlinux", "parts/vmlinux/size", "parts/vmlinux/sha256"]
)
@pytest.mark.parametrize("value", [None, 5, "x", [], {}, True])
def test_a_manifest_of_other_values_is_damage(
    paths: Paths, settings: Settings, agent: Path, key: str, value: object
) -> None:
    runtime = made(paths, settings, agent)
    path = runtime.kernel.parent / "manifest.json"
    manifest = json.loads(path.read_text())
    *outer, last = key.split("/")
    place = manifest
    for name in outer:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(manifest))
    assert inspect(paths, agent=agent).state == "damaged"
    assert made(paths, settings, agent).digest == runtime.digest
    assert inspect(paths, agent=agent).state == "ready"


def test_a_missing_agent_stops_before_anything_is_touched(paths: Paths, settings: Settings, tmp_path: Path) -> None:
    shutil.rmtree(paths.cache)
    with pytest.raises(RuntimeBroken, match="agent is missing"):
        made(paths, settings, tmp_path / "nowhere")
    assert not paths.cache.exists()


def test_a_failed_build_leaves_nothing(paths: Paths, settings: Settings, agent: Path) -> None:
    files = kernel_files()
    files[f"./boot/vmlinuz-{RELEASE}"] = files[f"./boot/vmlinuz-{RELEASE}"][:3000]
    keep_kernel(paths, deb(files))
    with pytest.raises(RuntimeBroken):
        made(paths, settings, agent)
    assert sorted(path.suffix for path in paths.runtimes.iterdir()) == [".deb", ".json"]
    assert inspect(paths, agent=agent).state == "absent"


def test_a_deadline_that_has_come_stops_the_build(paths: Paths, settings: Settings, agent: Path) -> None:
    with pytest.raises(ProgramFailed, match="took too long"):
        ensure(paths, settings, Told(), Deadline.after(0), agent=agent)
    assert inspect(paths, agent=agent).state == "absent"


def test_without_a_kernel_and_a_source_the_remedy_names_the_setting(
    paths: Paths, agent: Path, settings: Settings, tmp_path: Path
) -> None:
    shutil.rmtree(paths.runtimes)
    settings = settings._replace(debian_mirror=f"file://{tmp_path}/no archive")
    with pytest.raises(EnvironmentFault) as caught:
        made(paths, settings, agent)
    assert "PYRO_DEBIAN_MIRROR" in caught.value.remedy


def test_inspect_tells_of_a_runtime_of_another_agent(paths: Paths, settings: Settings, agent: Path) -> None:
    assert inspect(paths, agent=agent).state == "absent"
    made(paths, settings, agent)
    assert inspect(paths, agent=agent).state == "ready"
    agent.write_bytes(elf(b"a newer agent"))
    report = inspect(paths, agent=agent)
    assert (report.state, report.problems) == ("stale", ())
    agent.unlink()
    assert "agent is missing" in inspect(paths, agent=agent).problems[0]


BUILDER = """
import sys
from pathlib import Path
from pyro_mcp.config import load
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import ensure

class Gate(Silent):
    def phase(self, name, **fields):
        print(name, flush=True)
        sys.stdin.readline()

    def note(self, text):
        print("note", flush=True)

state, cache, environments, agent = map(Path, sys.argv[1:])
ensure(Paths(state, cache, environments), load({}), Gate(), Deadline.after(60), agent=agent)
print("done", flush=True)
"""


@contextlib.contextmanager
def another_builder(paths: Paths, agent: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that builds; it says its stages, and stops at each until it reads a line."""
    argv = [sys.executable, "-c", BUILDER, *map(str, (paths.state, paths.cache, paths.environments, agent))]
    source = Path(pyro_mcp.__file__).parents[1]
    with subprocess.Popen(
        argv, env={**os.environ, "PYTHONPATH": str(source)}, stdin=PIPE, stdout=PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_at_once_share_the_work(paths: Paths, agent: Path) -> None:
    with another_builder(paths, agent) as first, another_builder(paths, agent) as second:
        words = {said(first): first, said(second): second}
        assert set(words) == {"runtime-build", "note"}  # one builds, the other says that it waits
        words["runtime-build"].communicate("go on\n")
        assert said(words["note"]) == "done"  # without a stage of its own
        assert first.wait() == second.wait() == 0


def test_a_killed_builder_leaves_nothing_that_counts(paths: Paths, settings: Settings, agent: Path) -> None:
    with another_builder(paths, agent) as process:
        assert said(process) == "runtime-build"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert list(paths.runtimes.glob(f"{PARTIAL}*"))
    assert inspect(paths, agent=agent).state == "absent"
    descriptor = locks.try_lock(paths.runtime_lock)
    assert descriptor is not None  # the lock went with its holder
    os.close(descriptor)
    made(paths, settings, agent)
    assert not list(paths.runtimes.glob(f"{PARTIAL}*"))
    assert verify(paths) == []
