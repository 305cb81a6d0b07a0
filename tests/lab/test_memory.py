"""An idle machine gives memory back: what a guest has used and freed returns to the host through the balloon."""

from pathlib import Path

from pyro_mcp.drivers.firecracker.api import Api
from pyro_mcp.drivers.firecracker.memory import resident_mib, squeeze
from pyro_mcp.host.deadline import Deadline

from .test_driver_contract import bench_in

USED_MIB = 80
KEPT_MIB = 48


def test_what_a_guest_freed_comes_back_to_the_host_and_the_guest_goes_on(tmp_path: Path) -> None:
    with bench_in(tmp_path / "state").machine() as machine:
        vmm = machine.running.vmm
        use = f"dd if=/dev/zero of=/dev/shm/used bs=1M count={USED_MIB} 2>/dev/null && rm /dev/shm/used && echo used"
        assert machine.run(use).stdout == b"used\n"
        before = resident_mib(vmm)
        free = machine.agent.usage(Deadline.after(60)).memory_available_kib >> 10
        returned = squeeze(Api(machine.launch.paths.api, lambda: ""), vmm, free - KEPT_MIB, Deadline.after(60))
        after = resident_mib(vmm)
        assert returned >= USED_MIB // 2
        assert before - after >= USED_MIB // 2
        assert machine.run(use).stdout == b"used\n"
