"""The choice of a driver, over every kind of host: with and without KVM, Firecracker, QEMU and a network."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.drivers.firecracker import confinement
from pyro_mcp.drivers.firecracker.confinement import HostConfinement
from pyro_mcp.engine import choice
from pyro_mcp.errors import DriverUnavailable, InvalidRequest, RuntimeBroken
from pyro_mcp.host.kvm import EMULATED, KvmReport
from pyro_mcp.model import MachineSpec
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import firecracker
from pyro_mcp.runtime.firecracker import Vmm
from pyro_mcp.runtime.vmm_versions import capabilities_of
from pyro_mcp.testing.environments import Listener

NO_SVM = "the processor shows neither vmx nor svm"
USABLE = KvmReport(True, True, True, True, "", "")
UNUSABLE = KvmReport(True, True, True, False, NO_SVM, EMULATED)
VMM = Vmm(Path("/f"), Path("/j"), "release", {}, capabilities_of((1, 16, 1)))
SETTINGS = load({})


class Host:
    """A host that has what the test says. *fetched*: how often a fetch was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, paths: Paths) -> None:
        self.paths = paths
        self.kvm = UNUSABLE
        self.vmm: Vmm | None = None
        self.offered: Callable[[], Vmm] = self.nothing_offered
        self.qemu = True
        self.kvm_for_all = True
        self.fetched = 0
        monkeypatch.setattr(choice, "probe", lambda *_: self.kvm)
        monkeypatch.setattr(choice, "may_open_kvm", lambda: self.kvm_for_all)
        monkeypatch.setattr(firecracker, "find", lambda _: self.vmm)
        monkeypatch.setattr(firecracker, "install", lambda *_: self.fetch())
        monkeypatch.setattr(confinement, "probe", lambda *_: HostConfinement(4, True, ""))
        monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/qemu" if self.qemu else None)

    def nothing_offered(self) -> Vmm:
        raise RuntimeBroken("the release page cannot be reached")

    def fetch(self) -> Vmm:
        self.fetched += 1
        self.vmm = self.offered()
        return self.vmm

    def choose(self, name: str = "auto", **options: object) -> str:
        driver = choice.choose(self.paths, SETTINGS, name, fetch=Listener(), **options)  # type: ignore[arg-type]
        return f"{driver.capabilities.name} {driver.availability().accelerator}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, paths: Paths) -> Host:
    return Host(monkeypatch, paths)


def test_firecracker_is_taken_where_kvm_works_and_it_is_installed(host: Host) -> None:
    host.kvm, host.vmm = USABLE, VMM
    assert host.choose() == "firecracker kvm"
    assert host.fetched == 0


def test_firecracker_is_fetched_where_it_is_all_that_lacks(host: Host) -> None:
    host.kvm, host.offered = USABLE, lambda: VMM
    assert host.choose() == "firecracker kvm"
    assert host.fetched == 1


def test_qemu_with_kvm_is_taken_where_firecracker_cannot_be_had_and_the_fetch_is_not_tried_at_every_run(
    host: Host,
) -> None:
    host.kvm = USABLE
    assert [host.choose(), host.choose()] == ["qemu kvm", "qemu kvm"]
    assert host.fetched == 1


def test_qemu_without_kvm_is_taken_where_kvm_does_not_work_and_nothing_is_fetched(host: Host) -> None:
    host.vmm = VMM
    assert host.choose() == "qemu tcg"
    assert host.fetched == 0


def test_without_any_driver_the_reason_of_each_is_said(host: Host) -> None:
    host.qemu = False
    with pytest.raises(DriverUnavailable, match=rf"firecracker: .*{NO_SVM}.*qemu: .*not installed") as caught:
        host.choose()
    assert "pyro setup" in caught.value.remedy


def test_firecracker_by_name_without_kvm_fails_with_the_reason_and_a_remedy(host: Host) -> None:
    host.vmm = VMM
    with pytest.raises(DriverUnavailable, match=NO_SVM) as caught:
        host.choose("firecracker")
    assert "--driver auto" in caught.value.remedy


def test_firecracker_by_name_that_cannot_be_fetched_fails_and_is_tried_again_next_time(host: Host) -> None:
    host.kvm = USABLE
    for _ in range(2):
        with pytest.raises(DriverUnavailable, match="release page"):
            host.choose("firecracker")
    assert host.fetched == 2


def test_a_damaged_firecracker_is_not_replaced_behind_the_users_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_: Paths) -> Vmm:
        raise RuntimeBroken("firecracker has the wrong SHA-256")

    host.kvm = USABLE
    monkeypatch.setattr(firecracker, "find", damaged)
    with pytest.raises(DriverUnavailable, match="wrong SHA-256"):
        host.choose("firecracker")
    assert host.choose() == "qemu kvm"
    assert host.fetched == 0


def test_qemu_by_name_is_taken_though_firecracker_would_do(host: Host) -> None:
    host.kvm, host.vmm = USABLE, VMM
    assert host.choose("qemu") == "qemu kvm"


@pytest.mark.parametrize("name", ["auto", "qemu"])
def test_hardware_isolation_is_refused_where_only_emulation_is_there(host: Host, name: str) -> None:
    with pytest.raises(DriverUnavailable, match="by hardware"):
        host.choose(name, isolation="hardware")


def test_qemu_with_kvm_isolates_by_hardware(host: Host) -> None:
    host.kvm = USABLE
    assert host.choose("qemu", isolation="hardware") == "qemu kvm"


def test_a_machine_made_for_hardware_does_not_start_where_that_is_gone(host: Host) -> None:
    driver, _ = choice.qemu(host.paths)
    choice.check(driver, "any")
    with pytest.raises(DriverUnavailable, match="made for isolation by hardware"):
        choice.check(driver, "hardware")


def test_the_settings_decide_for_auto_only(host: Host) -> None:
    host.kvm, host.vmm = USABLE, VMM
    settings = SETTINGS._replace(driver="qemu")
    assert choice.choose(host.paths, settings, "auto").capabilities.name == "qemu"
    assert choice.choose(host.paths, settings, "firecracker").capabilities.name == "firecracker"


def test_an_unknown_driver_or_level_is_an_invalid_request(host: Host) -> None:
    with pytest.raises(InvalidRequest, match="auto, firecracker or qemu"):
        host.choose("bochs")
    with pytest.raises(InvalidRequest, match="require_isolation"):
        MachineSpec("debian:12", require_isolation="full")  # type: ignore[arg-type]


def test_the_survey_fetches_nothing_and_names_every_driver(host: Host) -> None:
    host.kvm = USABLE
    found = choice.survey(host.paths)
    assert [(one.driver.capabilities.name, one.available.usable) for one in found] == [
        ("firecracker", False),
        ("qemu", True),
    ]
    assert host.fetched == 0


def test_kvm_that_only_root_may_open_is_not_for_qemu_under_its_own_user(host: Host) -> None:
    host.kvm, host.kvm_for_all = USABLE, False
    assert host.choose("qemu") == "qemu tcg"


# Chooses on this host as it is, twice, and prints what each time was started, connected to, or opened of KVM; at the
# end the same for a program that is started, which shows that nothing escapes the hook.
AUDITED = """
import json, sys
from pyro_mcp.config import load
from pyro_mcp.engine import choice
from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.paths import Paths
seen = []
WORK = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "socket.connect"}
def hook(event, arguments):
    if event in WORK or (event == "open" and "/dev/kvm" in str(arguments[0])):
        seen.append(event)
sys.addaudithook(hook)
rounds = []
for _ in range(2):
    seen.clear()
    name = choice.choose(Paths.of_user(), load({}), "auto").capabilities.name
    rounds.append([name, list(seen)])
seen.clear()
proc.run(["true"], Deadline.after(60))
print(json.dumps([*rounds, list(seen)]))
"""


def test_auto_tries_kvm_once_and_then_chooses_without_starting_or_asking_anything(paths: Paths) -> None:
    done = subprocess.run([sys.executable, "-c", AUDITED], capture_output=True, check=True, timeout=120)
    (name, _), again, started = json.loads(done.stdout)
    assert again == [name, []]
    assert started
