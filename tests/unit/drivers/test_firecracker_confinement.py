"""What a host lets a machine have: cgroups of both versions as files, the probe's answer, what /proc shows."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyro_mcp.drivers.firecracker import cgroups, confinement
from pyro_mcp.drivers.firecracker.cgroups import PARENT, Hierarchy, hierarchy, remove_stale
from pyro_mcp.drivers.firecracker.confinement import HostConfinement, observed, parse
from pyro_mcp.host.processes import ProcessId

MACHINE = "0123456789ab"
VERSIONS = {"with": 7, "without": 0}


def unified(root: Path, *, offered: str, enabled: str) -> Path:
    """A cgroup v2 mount made of plain files; *enabled* is what the parent says after it was asked."""
    (root / PARENT).mkdir()
    (root / "cgroup.controllers").write_text(offered)
    (root / "cgroup.subtree_control").touch()
    control = root / PARENT / "cgroup.subtree_control"
    control.write_text(enabled)
    return root


def split(root: Path, *controllers: str) -> Path:
    for name in controllers:
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()
    return root


@contextmanager
def running(setup: str, through: str = "exec sh -c") -> Iterator[ProcessId]:
    """A process after *setup* in a shell, and *through* a program that starts another."""
    script = f"{setup}; {through} 'echo up; exec cat'"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        found = ProcessId.of(process.pid)
        assert found is not None
        yield found
        process.communicate()


@pytest.fixture(autouse=True)
def plain_files_enable_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_enable", lambda *_: None)


def test_version_2_offers_what_its_parent_has_enabled(tmp_path: Path) -> None:
    root = unified(tmp_path, offered="cpu io memory pids", enabled="memory pids")
    assert hierarchy(root) == Hierarchy(2, root, ("memory", "pids"))


def test_version_2_without_a_controller_of_ours_offers_nothing(tmp_path: Path) -> None:
    assert hierarchy(unified(tmp_path, offered="io misc", enabled="io")) is None


def test_version_1_offers_the_controllers_that_are_mounted(tmp_path: Path) -> None:
    root = split(tmp_path, "memory", "pids", "freezer")
    assert hierarchy(root) == Hierarchy(1, root, ("memory", "pids"))
    assert (root / "memory" / PARENT).is_dir()


def test_a_host_without_cgroups_offers_nothing(tmp_path: Path) -> None:
    assert hierarchy(tmp_path) is None
    assert hierarchy(tmp_path / "absent") is None


def test_empty_cgroups_of_machines_that_are_gone_are_removed_and_no_others(tmp_path: Path) -> None:
    machines = tmp_path / "machines"
    parent = tmp_path / "memory" / PARENT
    names = ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc", "not-a-machine", "dddddddddddd")
    for name in names:
        (parent / name).mkdir(parents=True)
        long_ago = time.time() - 3600
        os.utime(parent / name, (long_ago, long_ago))
    os.utime(parent / "bbbbbbbbbbbb")  # just made
    (machines / "cccccccccccc").mkdir(parents=True)  # its machine is there
    (parent / "dddddddddddd" / "busy").touch()  # as EBUSY: it cannot be removed
    remove_stale(Hierarchy(1, tmp_path, ("memory",)), machines)
    assert sorted(path.name for path in parent.iterdir()) == sorted(names[1:])
    remove_stale(None, machines)


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        (b"landlock=7 namespaces=yes\n", b"", HostConfinement(7, True, "")),
        (b"landlock=0 namespaces=yes\n", b"", HostConfinement(0, True, "")),
        (b"landlock=4 namespaces=no\n", b"x\nmount: operation not permitted\n", None),
        (b"", b"exec format error\n", HostConfinement(0, False, "exec format error")),
        (b"landlock=7\n", b"", HostConfinement(0, False, "the probe gave no answer")),
    ],
)
def test_the_probes_answer_is_read_and_nonsense_means_nothing(
    stdout: bytes, stderr: bytes, expected: HostConfinement | None
) -> None:
    found = parse(stdout, stderr)
    assert found == (expected or HostConfinement(4, False, "mount: operation not permitted"))


@pytest.mark.parametrize(
    ("uid", "namespaces", "kind"), [(0, True, "jailer"), (1000, True, "namespaces"), (1000, False, "landlock")]
)
def test_the_strongest_cell_is_taken(monkeypatch: pytest.MonkeyPatch, uid: int, *, namespaces: bool, kind: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert HostConfinement(1, namespaces, "").kind == kind


@pytest.mark.parametrize("namespaces", [True, False])
def test_what_is_expected_names_no_more_than_the_cell_gives(
    monkeypatch: pytest.MonkeyPatch, *, namespaces: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = confinement.expected(HostConfinement(0, namespaces, ""))
    assert ("user_namespace" in words) == namespaces
    assert ("own_root" in words) == namespaces
    assert "landlock" not in words
    assert "own_uid" not in words


def test_an_ordinary_process_of_this_host_is_seen_to_have_no_cell() -> None:
    with running("ulimit -n 2048; ulimit -c 0") as process:
        words = observed(process, HostConfinement(7, True, ""))
    assert not [word for word in words if word.endswith("_namespace")]
    assert not {"own_root", "own_uid", "jailer", "landlock", "resource_limits"} & set(words)


@pytest.mark.parametrize(
    ("limits", "seen"),
    [
        ("ulimit -n 2048; ulimit -f 100000; ulimit -c 0", True),
        ("ulimit -n 1024; ulimit -f 100000; ulimit -c 0", True),
        ("ulimit -n 2049; ulimit -f 100000; ulimit -c 0", False),
        ("ulimit -S -n 2048; ulimit -f 100000; ulimit -c 0", False),
        ("ulimit -n 2048; ulimit -f 100000; ulimit -S -c 0", False),
    ],
)
def test_limits_are_those_the_process_has(limits: str, *, seen: bool) -> None:
    with running(limits) as process:
        assert ("resource_limits" in observed(process, HostConfinement(0, True, ""))) == seen


def test_landlock_is_said_of_a_process_that_came_through_the_step_that_requires_it() -> None:
    drop = "exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --reuid=65534 --clear-groups sh -c"
    user = "exec setpriv --no-new-privs sh -c"
    with running("true", user if os.geteuid() else drop) as process:
        words = {name: observed(process, HostConfinement(version, True, "")) for name, version in VERSIONS.items()}
    assert ("landlock" in words["with"], "landlock" in words["without"]) == (True, False)
    assert "jailer" not in words["with"]


def test_a_process_that_is_gone_has_nothing_around_it() -> None:
    assert observed(ProcessId(1, 1), HostConfinement(7, True, "")) == []
