"""The lab's machine. What runs in it is in tests/lab; ``make lab`` runs that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.testing.lab.machine import LabMachine
from pyro_mcp.testing.lab.session import opened, prepare

ROOT = Path(__file__).parents[2]
LIFE_SECONDS = 600.0

pytestmark = pytest.mark.guest


@pytest.fixture
def lab(home: Paths, tmp_path: Path) -> Iterator[LabMachine]:
    """A lab without the checkout; afterwards the proof that it left its logs, and nothing else."""
    parts = prepare(home, load(), ROOT, Silent())
    machines = home.lab / "machines"
    before = set(machines.glob("*"))  # a developer may keep one
    with opened(home, parts, seconds=LIFE_SECONDS, keep_logs=tmp_path) as machine:
        assert len(set(machines.glob("*")) - before) == 1
        yield machine
    assert (tmp_path / "console.log").exists()
    assert set(machines.glob("*")) <= before


def test_kvm_opens_for_root_and_for_a_normal_user(lab: LabMachine) -> None:
    for user, uid in (("", "0"), ("dev", "1000")):
        said = lab.output("id -u; exec 3<>/dev/kvm && echo open; ls /lab", user=user)
        assert said.split() == [uid, "open", "cache", "mtimes.json", "site"]
