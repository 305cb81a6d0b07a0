"""A guest that has been taken over cannot crash, hang or bloat the host side, under QEMU."""

from pathlib import Path

import pytest

from pyro_mcp.drivers.base import RunningVmm
from pyro_mcp.drivers.failed_start import STOP_SECONDS
from pyro_mcp.engine.boot import boot
from pyro_mcp.errors import BootFailed, ProgramMissing
from pyro_mcp.testing.bench import Bench
from pyro_mcp.testing.hostile import BEHAVIOURS, TUNNELS, is_survived, program, with_hostile_agent

from .test_driver_contract import bench

__all__ = ["bench"]

CHECKOUT = Path(__file__).parents[2]
pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def hostile() -> Path:
    try:
        return program(CHECKOUT)
    except ProgramMissing as error:
        pytest.skip(error.cause)


@pytest.mark.parametrize("behaviour", [*BEHAVIOURS, *TUNNELS])
def test_a_hostile_guest_is_survived(bench: Bench, hostile: Path, behaviour: str) -> None:
    is_survived(bench, hostile, behaviour)


def test_a_guest_that_never_answers_is_a_failed_boot_with_its_console(bench: Bench, hostile: Path) -> None:
    """Its start takes longer than its end may: the end has all of its time nevertheless."""
    seen: list[RunningVmm] = []
    with bench.prepared() as good:
        target = bench.paths.state / "initramfs-silent.cpio"
        launch = good._replace(initramfs=with_hostile_agent(good.initramfs, hostile, "silent", target))
        with pytest.raises(BootFailed, match=r"the guest did not come up: .* took too long") as caught:
            boot(bench.driver, launch, seconds=STOP_SECONDS + 1.0, started=seen.append)
        assert len(seen) == 2
        assert not any(one.vmm.alive or one.launcher.alive for one in seen)
        assert any(line.startswith("console: [") for line in caught.value.details)
        assert '"reason":"stop"' in launch.paths.end.read_text()
