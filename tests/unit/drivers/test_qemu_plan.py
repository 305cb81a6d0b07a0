"""QEMU's command line, compared with golden files: ``PYRO_UPDATE_GOLDEN=1 pytest tests/unit/drivers`` rewrites them."""

import os
from pathlib import Path

import pytest

from pyro_mcp.drivers.base import Launch, LaunchNetwork, Snapshot
from pyro_mcp.drivers.launcher import FileUse, SocketUse
from pyro_mcp.drivers.qemu.plan import FIRST_DESCRIPTOR, plan
from pyro_mcp.drivers.qemu.snapshots import layout, nameless
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths

GOLDEN = Path(__file__).parent / "golden"


def launch(*, vcpu_count: int = 1, debug_console: bool = False) -> Launch:
    return Launch(
        machine_id="0123456789ab",
        vcpu_count=vcpu_count,
        mem_mib=1024,
        kernel=Path("/cache/runtime/vmlinux"),
        initramfs=Path("/cache/runtime/initramfs.cpio"),
        rootfs=Path("/cache/images/sha256-00.squashfs"),
        paths=MachinePaths(Path("/state/machines/0123456789ab")),
        agent=Path("/package/pyro-agent"),
        owner=ProcessId(1, 2),
        deadline_unix_ms=0,
        debug_console=debug_console,
    )


TEMPLATE = Path("/cache/templates/00")
SNAPSHOT = Snapshot(TEMPLATE / "state.bin", TEMPLATE / "memory.bin", TEMPLATE / "scratch.ext4", "layout")

NETWORK = LaunchNetwork({}, "060001234567")

CASES = {
    "qemu-tcg": (launch(), "tcg", 2596134),
    "qemu-tcg-unknown-tsc": (launch(), "tcg", None),
    "qemu-kvm-two-cpus": (launch(vcpu_count=2), "kvm", None),
    "qemu-tcg-two-cpus": (launch(vcpu_count=2), "tcg", 2596134),
    "qemu-tcg-template": (launch()._replace(keep_memory_in=SNAPSHOT.memory), "tcg", 2596134),
    "qemu-tcg-resume": (launch()._replace(resume_from=SNAPSHOT), "tcg", 2596134),
    "qemu-tcg-debug": (launch(debug_console=True), "tcg", 2596134),
    "qemu-tcg-network": (launch()._replace(network=NETWORK), "tcg", 2596134),
    "qemu-tcg-extra-disk": (launch()._replace(extra_disks=(Path("/cache/extra.squashfs"),)), "tcg", 2596134),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_the_golden_one(name: str) -> None:
    request, accelerator, tsc_khz = CASES[name]
    command = plan(request, program="/usr/bin/qemu-system-x86_64", accelerator=accelerator, tsc_khz=tsc_khz)
    files = [f"{FIRST_DESCRIPTOR + index}: {use}" for index, use in enumerate(command.files)]
    text = "\n".join([*command.argv, "", *files, ""])
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("PYRO_UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_several_processors_are_emulated_at_the_same_time_only_where_that_is_safe() -> None:
    def threads(vcpu_count: int, *, in_parallel: bool) -> str:
        request = launch(vcpu_count=vcpu_count)
        command = plan(request, program="qemu", accelerator="tcg", tsc_khz=None, in_parallel=in_parallel)
        return command.argv[command.argv.index("-accel") + 1]

    assert threads(2, in_parallel=False) == "tcg,thread=single"
    assert threads(2, in_parallel=True) == "tcg,thread=multi"


def test_every_descriptor_of_the_plan_is_used_by_the_command_line() -> None:
    command = plan(launch(), program="qemu", accelerator="tcg", tsc_khz=None)
    line = " ".join(command.argv)
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(command.files)):
        assert f"fd/{number}" in line or f"fd={number}" in line


def test_the_environment_is_opened_read_only_and_only_the_scratch_disk_for_writing() -> None:
    command = plan(launch(), program="qemu", accelerator="tcg", tsc_khz=None)
    writable = [use.path.name for use in command.files if isinstance(use, FileUse) and use.flags & os.O_RDWR]
    assert writable == ["scratch.ext4"]


def test_every_socket_lies_in_the_machines_own_directory() -> None:
    command = plan(launch(), program="qemu", accelerator="tcg", tsc_khz=None)
    assert {use.path.parent for use in command.files if isinstance(use, SocketUse)} == {launch().paths.directory}


def test_the_memory_of_a_template_is_shared_with_its_file_and_that_of_a_resumed_machine_is_not() -> None:
    made = " ".join(plan(CASES["qemu-tcg-template"][0], program="qemu", accelerator="tcg", tsc_khz=None).argv)
    resumed = " ".join(plan(CASES["qemu-tcg-resume"][0], program="qemu", accelerator="tcg", tsc_khz=None).argv)
    assert "share=on" in made
    assert "share=off" in resumed


def test_a_resumed_machine_gets_the_templates_memory_for_reading_only() -> None:
    command = plan(CASES["qemu-tcg-resume"][0], program="qemu", accelerator="tcg", tsc_khz=None)
    (use,) = [use for use in command.files if use.path == SNAPSHOT.memory]
    assert use == FileUse(SNAPSHOT.memory, os.O_RDONLY, lent=True)


def test_machines_of_one_kind_have_one_layout_whatever_their_names_are() -> None:
    def of(request: Launch) -> str:
        command = plan(nameless(request), program="/bin/sh", accelerator="tcg", tsc_khz=1)
        return layout(command, "cpu")

    other = launch()._replace(machine_id="ffffffffffff", paths=MachinePaths(Path("/state/machines/ffffffffffff")))
    assert of(launch()) == of(other) == of(CASES["qemu-tcg-resume"][0])
    assert of(launch()) != of(launch(vcpu_count=2))


def test_the_layout_changes_with_the_processor_and_the_command_line() -> None:
    command = plan(nameless(launch()), program="/bin/sh", accelerator="tcg", tsc_khz=1)
    other = plan(nameless(launch()), program="/bin/sh", accelerator="tcg", tsc_khz=2)
    assert len({layout(command, "a"), layout(command, "b"), layout(other, "a")}) == 3
