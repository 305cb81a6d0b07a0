"""What Firecracker is started with and asked, compared with golden files.

``PYRO_UPDATE_GOLDEN=1 pytest tests/unit/drivers`` rewrites them.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pyro_mcp.drivers.base import Launch, LaunchNetwork, Snapshot
from pyro_mcp.drivers.firecracker.cell import Cell, Cgroup, binds
from pyro_mcp.drivers.firecracker.cgroups import Hierarchy, machine_cgroup
from pyro_mcp.drivers.firecracker.plan import Binaries, command
from pyro_mcp.drivers.firecracker.requests import (
    Request,
    boot_requests,
    load_requests,
    snapshot_requests,
)
from pyro_mcp.drivers.firecracker.snapshots import layout
from pyro_mcp.drivers.launcher import Identity
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths
from pyro_mcp.runtime.firecracker import Vmm
from pyro_mcp.runtime.vmm_versions import Version, capabilities_of

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path("/sys/fs/cgroup")
BINARIES = Binaries(Path("/cache/vmm/firecracker"), Path("/cache/vmm/jailer"))
DISK = 4 << 30


def launch(*, vcpu_count: int = 1, debug_console: bool = False, machine_id: str = "0123456789ab") -> Launch:
    return Launch(
        machine_id=machine_id,
        vcpu_count=vcpu_count,
        mem_mib=1024,
        kernel=Path("/cache/runtime/vmlinux"),
        initramfs=Path("/cache/runtime/initramfs-vsock.cpio"),
        rootfs=Path("/cache/images/sha256-00.squashfs"),
        paths=MachinePaths(Path("/state/machines") / machine_id),
        agent=Path("/package/pyro-agent"),
        owner=ProcessId(1, 2),
        deadline_unix_ms=0,
        debug_console=debug_console,
    )


def resumed() -> Launch:
    found = Snapshot(Path("/templates/t/state"), Path("/templates/t/memory"), Path("/templates/t/scratch"), "")
    return launch()._replace(resume_from=found)


def networked() -> Launch:
    return launch()._replace(network=LaunchNetwork({"tap": "tap0"}, "060001234567"))


def cgroup(version: int) -> Cgroup | None:
    if version == 2:
        return machine_cgroup(launch(vcpu_count=2), Hierarchy(2, ROOT, ("cpu", "memory", "pids")))
    return machine_cgroup(launch(), Hierarchy(1, ROOT, ("memory", "pids")))


JAILER = Cell("jailer", landlock=True, identity=Identity(1879048193, 1879048193), cgroup=cgroup(2))
OLD_JAILER = replace(JAILER, landlock=False, cgroup=cgroup(1))
COMMANDS = {
    "firecracker-jailer": (launch(vcpu_count=2), JAILER),
    "firecracker-jailer-v1": (launch(), OLD_JAILER),
    "firecracker-jailer-no-cgroup-resumed": (resumed(), replace(JAILER, cgroup=None)),
    "firecracker-namespaces": (launch(), Cell("namespaces", landlock=True)),
    "firecracker-landlock": (launch(), Cell("landlock", landlock=True)),
    "firecracker-jailer-network": (networked(), JAILER),
    "firecracker-namespaces-network": (networked(), Cell("namespaces", landlock=True)),
}
REQUESTS: dict[str, tuple[Launch, Version]] = {
    "firecracker-requests-1.12.1": (launch(), (1, 12, 1)),
    "firecracker-requests-1.16.1-debug": (launch(vcpu_count=2, debug_console=True), (1, 16, 1)),
    "firecracker-requests-network": (networked(), (1, 12, 1)),
    "firecracker-requests-template": (launch()._replace(keep_memory_in=Path("/templates/t/memory")), (1, 12, 1)),
}


def check(name: str, text: str) -> None:
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("PYRO_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def written(requests: tuple[Request, ...]) -> str:
    return "".join(f"{one.method} {one.path}\n  {json.dumps(one.body, sort_keys=True)}\n" for one in requests)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_is_the_golden_one(name: str) -> None:
    request, cell = COMMANDS[name]
    made = command(request, cell, BINARIES, largest_file=DISK)
    plan = json.loads(made.argv[2])
    lines = [
        *made.argv[:2],
        json.dumps(plan, indent=1, sort_keys=True),
        f"namespaces: {' '.join(made.namespaces)}",
        f"cgroups: {' '.join(map(str, made.cgroups))}",
        f"rlimits: {dict(made.rlimits)}",
        f"log pipe: {made.log_pipe}",
        *([f"network: {dict(made.network)}"] if made.network is not None else []),
        *(f"extra log: {log.pipe} -> {log.path} ({log.limit})" for log in made.extra_logs),
        "",
    ]
    check(name, "\n".join(lines))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_requests_are_the_golden_ones(name: str) -> None:
    request, version = REQUESTS[name]
    check(name, written(boot_requests(request, capabilities_of(version))))


@pytest.mark.parametrize("version", [(1, 12, 1), (1, 16, 1)])
def test_a_snapshot_is_taken_and_loaded_with_the_keys_the_version_knows(version: Version) -> None:
    name = "firecracker-snapshot-" + ".".join(map(str, version))
    requests = (*snapshot_requests("run/state.new", "run/memory.new"), *load_requests(capabilities_of(version)))
    check(name, written(requests))


def test_no_request_names_a_path_of_the_host() -> None:
    for request, version in REQUESTS.values():
        text = written(boot_requests(request, capabilities_of(version)))
        assert "/cache" not in text
        assert "/state" not in text


def test_the_vmm_sees_the_machines_files_and_only_the_disk_and_the_sockets_for_writing() -> None:
    for request, cell in COMMANDS.values():
        found = binds(cell, request, BINARIES.firecracker)
        assert {bind.source.name for bind in found if bind.access == "write"} == {"scratch.ext4", "run"}


def test_only_the_jailer_starts_as_root_and_it_gets_the_machines_own_user() -> None:
    argv = json.loads(command(launch(), JAILER, BINARIES, largest_file=DISK).argv[2])["argv"]
    assert argv[argv.index("--uid") + 1] == "1879048193"
    with pytest.raises(ValueError, match="identity"):
        command(launch(), replace(JAILER, identity=None), BINARIES, largest_file=DISK)


def vmm(version: Version, digest: str = "00") -> Vmm:
    return Vmm(Path("/f"), Path("/j"), "wheel", {"firecracker": digest}, capabilities_of(version))


def test_a_layout_is_the_same_for_two_machines_of_one_kind() -> None:
    first, second = (layout(launch(machine_id=name), vmm((1, 12, 1)), "cpu") for name in ("0" * 12, "f" * 12))
    assert first == second
    assert layout(resumed(), vmm((1, 12, 1)), "cpu") == first


@pytest.mark.parametrize(
    ("request_", "of", "cpu"),
    [
        (launch(vcpu_count=2), vmm((1, 12, 1)), "cpu"),
        (launch(), vmm((1, 16, 1)), "cpu"),
        (launch(), vmm((1, 12, 1), "11"), "cpu"),
        (launch(), vmm((1, 12, 1)), "another"),
    ],
)
def test_a_layout_differs_with_the_devices_the_vmm_and_the_processor(request_: Launch, of: Vmm, cpu: str) -> None:
    assert layout(request_, of, cpu) != layout(launch(), vmm((1, 12, 1)), "cpu")
