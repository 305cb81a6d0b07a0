"""What is missing for a network is said before a machine starts, with what provides it."""

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
