"""The whole command in the lab: doctor, a run without being told the driver, what is refused, what is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import sha256_file
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths

CGROUPS = Path("/sys/fs/cgroup/pyro-machines")
JAILED = {"jailer", "own_uid", "cgroup_v2:cpu+memory+pids"}
EVERYWHERE = {
    "seccomp",
    "no_new_privs",
    "no_capabilities",
    "resource_limits",
    "own_root",
    "pid_namespace",
    "network_namespace",
    "landlock",
}
SECONDS = 500.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """State of this test's own; the cache is the one of the lab."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYRO_BOOT_TIMEOUT_SECONDS", "240")
    return Paths.of_user()


def pyro(*words: str) -> tuple[int, Any, str]:
    argv = [sys.executable, "-m", "pyro_mcp", *words]
    done = subprocess.run(argv, capture_output=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, json.loads(done.stdout or b"null"), done.stderr.decode(errors="replace")


def nothing_is_left(paths: Paths) -> bool:
    groups = [path for path in CGROUPS.glob("*/") if path.is_dir()] if os.geteuid() == 0 else []
    return not groups and not list(paths.machines.glob("*"))


@pytest.mark.quick
def test_doctor_finds_kvm_and_takes_firecracker(home: Paths) -> None:
    code, report, _ = pyro("doctor", "--json")
    assert (code, report["kvm"]["usable"], report["driver"]["name"]) == (0, True, "firecracker")
    assert {one["name"]: one["hardware_isolation"] for one in report["driver"]["candidates"]}["firecracker"]
    assert report["runtime"]["component_versions"]["firecracker"] == "1.12.1"
    assert "CVE-2026-1386" in json.dumps(report["issues"])
    assert home.state.exists()


@pytest.mark.quick
def test_a_run_answers_over_vsock_isolated_by_hardware_and_in_its_cell(home: Paths) -> None:
    code, result, errors = pyro(
        *("run", "--json", "--require-isolation", "hardware", "--timeout-seconds", "120"),
        *("debian:12", "--", "git", "--version"),
    )
    assert code == 0, errors
    assert result["stdout"].startswith("git version 2.")
    assert (result["execution_mode"], result["isolation"]["vmm"]) == ("guest_vsock", "firecracker")
    wanted = EVERYWHERE | (JAILED if os.geteuid() == 0 else {"user_namespace"})
    assert wanted <= set(result["isolation"]["sandbox"])
    assert until(lambda: nothing_is_left(home), Deadline.after(10))


def test_kill_minus_nine_of_the_caller_leaves_nothing(home: Paths) -> None:
    words = ("run", "--timeout-seconds", "400", "debian:12", "--", "echo ready; sleep 300")
    with subprocess.Popen([sys.executable, "-m", "pyro_mcp", *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert until(lambda: nothing_is_left(home), Deadline.after(30))


def test_a_corrupted_firecracker_is_refused_with_both_digests(
    home: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = home.vmms / "1.12.1"
    target = tmp_path / "cache" / "pyro-mcp" / "vmm" / "1.12.1"
    target.mkdir(parents=True)
    for name in ("firecracker", "jailer"):
        data = (source / name).read_bytes()
        (target / name).write_bytes(data if name == "jailer" else data[:-1] + b"x")
        (target / name).chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYRO_ENVIRONMENT_CACHE_DIR", str(home.environments))
    code, failure, _ = pyro("run", "--json", "--driver", "firecracker", "debian:12", "--", "true")
    assert (code, failure["code"]) == (125, "driver_unavailable")
    assert "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930" in failure["error"]
    assert sha256_file(target / "firecracker") in failure["error"]
    assert failure["error"].count("SHA-256") == 1
