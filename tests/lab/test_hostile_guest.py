"""A guest that has been taken over cannot crash, hang or bloat the host side, under Firecracker."""

from pathlib import Path

import pytest

from pyro_mcp.errors import ProgramMissing
from pyro_mcp.testing.bench import Bench
from pyro_mcp.testing.hostile import BEHAVIOURS, TUNNELS, is_survived, program

from .test_driver_contract import bench

__all__ = ["bench"]

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hostile() -> Path:
    try:
        return program(CHECKOUT)
    except ProgramMissing as error:
        pytest.skip(error.cause)


@pytest.mark.parametrize("behaviour", [*BEHAVIOURS, *TUNNELS])
def test_a_hostile_guest_is_survived(bench: Bench, hostile: Path, behaviour: str) -> None:
    is_survived(bench, hostile, behaviour)
