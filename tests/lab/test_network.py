"""Firecracker with a network, in its jail: booted for a template, then resumed, in a world of namespaces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.network_world import World

SECONDS = 500.0
LOOK = """
for host in example.com 10.0.0.1 169.254.169.254 5.6.7.8; do
  to="/dev/tcp/$host/80"
  said=$(timeout 60 bash -c "exec 3<>$to"' && echo -e "GET / HTTP/1.0\\r\\n\\r" >&3 && tail -n 1 <&3' 2>&-)
  echo "$host: ${said:-closed}"
done
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the world of this test")
def test_a_guest_of_firecracker_reaches_the_internet_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("PYRO_BOOT_TIMEOUT_SECONDS", "240")
    words = [
        "run",
        "-i",
        "--json",
        "--network",
        "--driver",
        "firecracker",
        "--timeout-seconds",
        "400",
        "debian:12",
        "--",
        "bash",
    ]
    with World(tmp_path, forwards=True) as world:
        done = subprocess.run(
            world.inside([sys.executable, "-m", "pyro_mcp", *words]),
            input=LOOK.encode(),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        result = json.loads(done.stdout)
        assert result["isolation"]["vmm"] == "firecracker"
        assert result["stdout"].splitlines() == [
            "example.com: this is 93.184.216.34",
            "10.0.0.1: closed",
            "169.254.169.254: closed",
            "5.6.7.8: closed",
        ]
        assert world.traces() == []
