"""The pure parts of a session in the lab."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.host.files import write_json
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths, Paths
from pyro_mcp.testing.lab.checkout import archive
from pyro_mcp.testing.lab.kept import drop, find
from pyro_mcp.testing.lab.machine import Parts
from pyro_mcp.testing.lab.session import USERS, command_line
from pyro_mcp.testing.lab.site import wanted

PARTS = Parts(*(Path("/nowhere") for _ in range(5)))


def test_arguments_reach_pytest_as_they_are() -> None:
    line = command_line(["tests/lab", "-k", "vsock and not 'x'"], "user")
    assert line.startswith("cd /work && exec python3 -m pytest ")
    assert "--junit-xml=/results/user/junit.xml" in line
    assert line.endswith("""tests/lab -k 'vsock and not '"'"'x'"'"''""")


def test_tests_run_as_root_and_as_a_normal_user() -> None:
    assert USERS == {"root": "", "user": "dev"}


def test_the_lab_gets_pyros_packages_and_the_test_tools_only() -> None:
    project = {
        "project": {"dependencies": ["click>=8"]},
        "dependency-groups": {"dev": ["ruff", "pytest>=8", "pytest-timeout", "hypothesis", {"include-group": "x"}]},
    }
    assert wanted(project) == ["click>=8", "hypothesis", "pytest-timeout", "pytest>=8"]


def test_the_checkout_travels_without_what_was_built_in_it(tmp_path: Path) -> None:
    for name in ("src/pyro_mcp/a.py", "src/pyro_mcp/__pycache__/a.pyc", "build/lab/x", ".git/x", "tests/lab/t.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    with tarfile.open(fileobj=io.BytesIO(archive(tmp_path))) as tar:
        files = [entry.name for entry in tar if entry.isfile()]
    assert files == ["pyproject.toml", "src/pyro_mcp/a.py", "tests/lab/t.py"]


@pytest.mark.parametrize("record", [None, {}, {"launcher": 1, "vmm": 2, "directory": "/"}])
def test_without_a_sound_record_no_lab_is_kept(paths: Paths, record: object) -> None:
    paths.lab.mkdir(parents=True)
    if record is not None:
        write_json(paths.lab / "kept.json", record)
    assert find(paths, PARTS) is None
    assert not drop(paths)


def test_a_kept_lab_whose_machine_has_died_is_not_taken_and_leaves_nothing(paths: Paths, tmp_path: Path) -> None:
    gone = {"pid": os.getpid(), "start_ticks": 1}  # a process of an earlier time
    directory = tmp_path / "0123456789ab"
    directory.mkdir()
    paths.lab.mkdir(parents=True)
    record = {"launcher": gone, "vmm": gone, "directory": str(directory), "parts": ["/nowhere"] * 4}
    write_json(paths.lab / "kept.json", record)
    assert find(paths, PARTS) is None
    assert drop(paths)
    assert not directory.exists()


def test_a_lab_made_of_other_parts_is_not_taken(paths: Paths, tmp_path: Path) -> None:
    me = ProcessId.current()
    mine = {"pid": me.pid, "start_ticks": me.start_ticks}
    paths.lab.mkdir(parents=True)
    record = {"launcher": mine, "vmm": mine, "directory": str(tmp_path), "parts": ["/nowhere"] * 4}
    write_json(paths.lab / "kept.json", record)
    found = find(paths, PARTS)
    assert found is not None
    assert (found.files, found.vmm) == (MachinePaths(tmp_path), RunningVmm(me, me))
    write_json(paths.lab / "kept.json", {**record, "parts": ["/elsewhere"] * 4})
    assert find(paths, PARTS) is None
