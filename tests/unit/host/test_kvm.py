"""KVM counts as usable only when a guest ran on it, and the verdict is kept for the boot."""

import json
import os
import signal
import struct
from pathlib import Path

import pytest

from pyro_mcp.host import kvm, kvm_guest
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.kvm import KvmReport, probe, processor_reason, verdict
from pyro_mcp.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "cache", tmp_path / "environments")


@pytest.fixture
def capable(tmp_path: Path) -> Path:
    """The cpuinfo of a processor with the extension."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu vme svm\n\nprocessor\t: 1\nflags\t\t: fpu vme svm\n")
    return path


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device that can be opened, and answers no call of KVM."""
    path = tmp_path / "kvm"
    path.touch()
    return path


def look(paths: Paths, device: Path, cpuinfo: Path) -> KvmReport:
    return probe(paths, Deadline.after(30), device=device, cpuinfo=cpuinfo)


def test_a_missing_device_is_a_reason(paths: Paths, tmp_path: Path, capable: Path) -> None:
    report = look(paths, tmp_path / "none", capable)
    assert (report.exists, report.readable, report.writable, report.usable) == (False, False, False, False)
    assert "No such file" in report.reason
    assert "modprobe" in report.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_device_that_may_not_be_opened_names_the_group(paths: Paths, device: Path, capable: Path) -> None:
    device.chmod(0)
    report = look(paths, device, capable)
    assert (report.exists, report.readable, report.writable, report.usable) == (True, False, False, False)
    assert "group" in report.remedy


def test_a_processor_without_the_extension_is_a_reason_and_nothing_is_tried(
    paths: Paths, device: Path, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu vmxnet svm_lock\nmodel name : vmx\n")
    report = look(paths, device, cpuinfo)
    assert not report.usable
    assert "neither vmx nor svm" in report.reason
    assert not paths.host_facts.exists()


def test_an_unreadable_cpuinfo_is_a_reason(paths: Paths, device: Path, tmp_path: Path) -> None:
    report = look(paths, device, tmp_path / "no-proc")
    assert not report.usable
    assert "cannot be read" in report.reason


def test_a_processor_with_the_extension_is_no_reason(capable: Path) -> None:
    assert processor_reason(capable) == ""


def test_a_device_that_is_not_kvm_is_found_out_by_trying(paths: Paths, device: Path, capable: Path) -> None:
    report = look(paths, device, capable)
    assert (report.exists, report.readable, report.writable, report.usable) == (True, True, True, False)
    assert report.reason == "a call of KVM failed: Inappropriate ioctl for device"


def test_the_verdict_is_kept_for_the_boot(paths: Paths, device: Path, capable: Path) -> None:
    first = look(paths, device, capable)
    facts = json.loads(paths.host_facts.read_text())
    facts["kvm"]["reason"] = ""
    paths.host_facts.write_text(json.dumps(facts))
    assert look(paths, device, capable).usable
    facts["boot_id"] = "another boot"
    paths.host_facts.write_text(json.dumps(facts))
    assert look(paths, device, capable) == first


def test_a_guest_that_took_too_long_once_gets_a_second_chance(
    paths: Paths, device: Path, capable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "guest.py"
    program.write_text("import os, sys, signal\nfloat(sys.argv[2]) > 2 or os.kill(os.getpid(), signal.SIGALRM)\n")
    monkeypatch.setattr(kvm, "GUEST_PROGRAM", program)
    assert look(paths, device, capable).usable
    monkeypatch.setattr(kvm, "GUEST_SECONDS", (1.0, 2.0))
    device.chmod(0o666)  # asks again
    assert "does not run" in look(paths, device, capable).reason


def test_another_mode_of_the_device_asks_again(paths: Paths, device: Path, capable: Path) -> None:
    look(paths, device, capable)
    facts = json.loads(paths.host_facts.read_text())
    facts["kvm"]["reason"] = "from memory"
    paths.host_facts.write_text(json.dumps(facts))
    assert look(paths, device, capable).reason == "from memory"
    device.chmod(0o666)
    assert look(paths, device, capable).reason != "from memory"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot_id": 5}', '{"kvm": 5}'])
def test_damaged_facts_are_measured_again(paths: Paths, device: Path, capable: Path, text: str) -> None:
    first = look(paths, device, capable)
    paths.host_facts.write_text(text)
    assert look(paths, device, capable) == first


def test_facts_that_cannot_be_kept_are_no_failure(paths: Paths, device: Path, capable: Path) -> None:
    paths.state.parent.mkdir(exist_ok=True)
    paths.state.write_text("a file in the place of the directory")
    assert "ioctl" in look(paths, device, capable).reason


def test_a_deadline_that_has_come_says_nothing_about_kvm(paths: Paths, device: Path, capable: Path) -> None:
    report = probe(paths, Deadline.after(0), device=device, cpuinfo=capable)
    assert not report.usable
    assert "could not be tried" in report.reason
    assert not paths.host_facts.exists()


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [
        (0, b"", ""),
        (-signal.SIGALRM, b"", "KVM makes machines, but a guest in one does not run"),
        (1, b"a call of KVM failed: Bad address\n", "a call of KVM failed: Bad address"),
        (1, b"", "the program that tries KVM ended with status 1"),
        (-signal.SIGSEGV, b"core", "the program that tries KVM ended with status -11"),
    ],
)
def test_every_end_of_the_trial_has_its_words(status: int, stderr: bytes, reason: str) -> None:
    assert verdict(status, stderr) == reason


def run_structure(reason: int, *io: int, data: int = 0) -> bytes:
    run = bytearray(4096)
    struct.pack_into("<I", run, 8, reason)
    if io:
        struct.pack_into("<BBHIQ", run, 32, *io, 2048)
    run[2048] = data
    return bytes(run)


def test_the_guests_output_and_halt_are_recognized() -> None:
    kvm_guest.check_output(run_structure(2, 1, 1, 0x10, 1, data=0x42))
    kvm_guest.check_halt(run_structure(5))


@pytest.mark.parametrize(
    "run",
    [
        run_structure(9),
        run_structure(17),
        run_structure(2, 1, 1, 0x10, 1, data=0x43),
        run_structure(2, 1, 1, 0x11, 1, data=0x42),
        run_structure(2, 0, 1, 0x10, 1, data=0x42),
        run_structure(5),
    ],
)
def test_anything_else_is_a_guest_that_failed(run: bytes) -> None:
    with pytest.raises(kvm_guest.GuestError):
        kvm_guest.check_output(run)


def test_the_numbers_of_the_calls_hold_the_sizes_of_their_structures() -> None:
    def size(number: int) -> int:
        return number >> 16 & 0x3FFF

    assert size(kvm_guest.SET_USER_MEMORY_REGION) == kvm_guest.MEMORY_REGION.size == 32
    assert size(kvm_guest.SET_REGS) == kvm_guest.REGS.size == 144
    assert size(kvm_guest.GET_SREGS) == size(kvm_guest.SET_SREGS) == kvm_guest.SREGS_SIZE == 312
