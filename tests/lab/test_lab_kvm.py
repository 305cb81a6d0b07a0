"""What the lab is for: a KVM that pyro takes for usable, for root and for a normal user of its group."""

import os
import stat
from pathlib import Path

import pytest

from pyro_mcp.config import load
from pyro_mcp.environments.facade import Environments
from pyro_mcp.host import kvm
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import build

pytestmark = pytest.mark.quick


def test_kvm_is_a_device_of_its_group_only() -> None:
    status = kvm.DEVICE.stat()
    assert stat.S_ISCHR(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert os.geteuid() == 0 or status.st_gid in os.getgroups()


def test_kvm_runs_a_guest(paths: Paths) -> None:
    report = kvm.probe(paths, Deadline.after(60))
    assert (report.usable, report.reason) == (True, "")


def test_the_processor_has_amds_virtualization() -> None:
    assert "svm" in Path("/proc/cpuinfo").read_text().split("flags", 1)[1].split("\n", 1)[0].split()


def test_the_runtime_and_the_environment_came_along() -> None:
    paths = Paths.of_user()
    assert build.inspect(paths).state == "ready"
    assert Environments(paths, load()).inspect("debian:12")["installed"]
    build.ensure(paths, load(), Silent(), Deadline.after(1))
