"""What is sent to Firecracker is documented by it: keys as its swagger file lists them, required ones included.

1.16.1 cannot be had on our test hosts, so this and the golden files are all that is checked of it. Recorded from
src/firecracker/swagger/firecracker.yaml at 004d9353, which has all of 1.16; LATER are the keys that came after 1.12.1.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from pyro_mcp.drivers.firecracker.requests import (
    Request,
    balloon_target,
    boot_requests,
    flush_metrics,
    load_requests,
    snapshot_requests,
)
from pyro_mcp.runtime.vmm_versions import Version, capabilities_of

from .test_firecracker_plan import REQUESTS

# path: (required keys, other keys)
DOCUMENTED: dict[str, tuple[set[str], set[str]]] = {
    "/machine-config": ({"mem_size_mib", "vcpu_count"}, {"cpu_template", "smt", "track_dirty_pages", "huge_pages"}),
    "/boot-source": ({"kernel_image_path"}, {"boot_args", "initrd_path"}),
    "/drives": (
        {"drive_id", "is_root_device"},
        {"partuuid", "cache_type", "is_read_only", "path_on_host", "rate_limiter", "io_engine", "socket"},
    ),
    "/network-interfaces": ({"iface_id", "host_dev_name"}, {"guest_mac", "rx_rate_limiter", "tx_rate_limiter"}),
    "/vsock": ({"guest_cid", "uds_path"}, {"vsock_id"}),
    "/entropy": (set(), {"rate_limiter"}),
    "/balloon": (
        {"amount_mib"},
        {"deflate_on_oom", "stats_polling_interval_s", "free_page_hinting", "free_page_reporting"},
    ),
    "/actions": ({"action_type"}, set()),
    "/vm": ({"state"}, set()),
    "/snapshot/create": ({"mem_file_path", "snapshot_path"}, {"snapshot_type"}),
    "/snapshot/load": (
        {"snapshot_path"},
        {
            *("enable_diff_snapshots", "track_dirty_pages", "mem_file_path", "mem_backend", "resume_vm"),
            *("network_overrides", "vsock_override", "clock_realtime"),
        },
    ),
}
# The bodies within bodies.
BUCKET: tuple[set[str], set[str]] = ({"size", "refill_time"}, {"one_time_burst"})
LIMITER = {"bandwidth", "ops"}
LATER = {
    "/balloon": {"free_page_hinting", "free_page_reporting"},
    "/snapshot/load": {"track_dirty_pages", "vsock_override", "clock_realtime"},
}


def everything(version: Version) -> Iterator[Request]:
    capabilities = capabilities_of(version)
    for launch, _ in REQUESTS.values():
        yield from boot_requests(launch, capabilities)
    yield from snapshot_requests("run/state.new", "run/memory.new")
    yield from load_requests(capabilities)
    yield balloon_target(64)
    yield flush_metrics()


def place(path: str) -> str:
    """The path without the name of the drive or the interface."""
    return next(known for known in DOCUMENTED if path == known or path.startswith(f"{known}/"))


@pytest.mark.parametrize("version", [(1, 12, 1), (1, 16, 1)])
def test_each_request_has_the_documented_keys_only_and_all_that_are_required(version: Version) -> None:
    for request in everything(version):
        required, others = DOCUMENTED[place(request.path)]
        later = LATER.get(request.path, set()) if version < (1, 13) else set()
        body: dict[str, Any] = request.body or {}
        assert required <= body.keys() <= (required | others) - later, request


def test_every_kind_of_request_was_looked_at() -> None:
    asked = {place(request.path) for version in ((1, 12, 1), (1, 16, 1)) for request in everything(version)}
    assert DOCUMENTED.keys() == asked


def limiters(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [value for key, value in body.items() if key.endswith("rate_limiter")]


@pytest.mark.parametrize("version", [(1, 12, 1), (1, 16, 1)])
def test_limits_of_rates_have_the_documented_keys_too(version: Version) -> None:
    found = [one for request in everything(version) for one in limiters(request.body or {})]
    assert found
    for limiter in found:
        assert limiter.keys() <= LIMITER
        for bucket in limiter.values():
            assert BUCKET[0] <= bucket.keys() <= BUCKET[0] | BUCKET[1]
            assert all(type(number) is int and number > 0 for number in bucket.values())


@pytest.mark.parametrize("version", [(1, 12, 1), (1, 16, 1)])
def test_the_entropy_device_has_a_limit(version: Version) -> None:
    bodies = [request.body or {} for request in everything(version) if request.path == "/entropy"]
    assert bodies
    assert all(body["rate_limiter"]["bandwidth"]["size"] > 0 for body in bodies)
