"""What is missing for a network is said before a machine starts, with what provides it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyro_mcp.errors import NetworkUnavailable
from pyro_mcp.network import uplink


def test_a_host_without_the_tun_device_is_told_which_module_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "TUN", tmp_path / "tun")
    with pytest.raises(NetworkUnavailable, match="is not there") as caught:
        uplink._check_tun()
    assert "modprobe tun" in caught.value.remedy


def test_a_user_who_may_not_open_the_tun_device_is_told_how_to_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "tun"
    device.touch()
    monkeypatch.setattr(uplink, "TUN", device)
    uplink._check_tun()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may open everything
    with pytest.raises(NetworkUnavailable, match="not this user's to open") as caught:
        uplink._check_tun()
    assert f"chmod 0666 {device}" in caught.value.remedy


# A host of our own, for anybody: its firewall is what nft reads from stdin.
HOST = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c")
LOOK = """
import pathlib, shutil, subprocess, sys
from pyro_mcp.network import uplink
nft = shutil.which("nft", path="/usr/sbin:/sbin")
subprocess.run([nft, "-f", "-"], stdin=sys.stdin, check=True)
uplink.IP_FORWARD.write_text("1")
print(uplink._veth_obstacle(nft))
"""
FORWARDING = {
    "nothing": (None, ""),
    "a chain that lets through": (
        ("policy accept", "ct state established counter accept", "ip saddr 10.0.0.1 drop"),
        "",
    ),
    "a policy": (("policy drop", "ct state established accept"), "the table site does not forward"),
    "a last rule": (
        ("policy accept", "ip daddr 10.0.0.1 accept", "reject with icmpx admin-prohibited"),
        "does not forward",
    ),
    "a last rule that counts": (("policy accept", "counter log drop"), "does not forward"),
}


@pytest.mark.parametrize("name", FORWARDING)
def test_a_firewall_that_would_not_forward_is_an_obstacle(name: str) -> None:
    rules, obstacle = FORWARDING[name]
    lines = ("table inet site {", "chain forward {", "type filter hook forward priority 0", *(rules or ()), "}", "}")
    table = "\n".join(lines) if rules else ""
    done = subprocess.run((*HOST, LOOK), input=table, text=True, capture_output=True, timeout=60, check=True)
    assert obstacle in done.stdout
    assert bool(obstacle) == bool(done.stdout.strip())
