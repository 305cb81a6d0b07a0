"""The table of Firecracker's versions: what each can do, which are refused, what doctor says of them."""

import pytest

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.runtime.vmm_versions import PINNED, Version, capabilities_of, parse_version, warnings_about

# version: vsock override, clock_realtime, track_dirty key, snapshot format, free page reporting, bare pause
ROWS: dict[Version, tuple[bool, bool, str, int | None, bool, bool]] = {
    (1, 12, 1): (False, False, "enable_diff_snapshots", 6, False, True),
    (1, 13, 0): (False, False, "track_dirty_pages", 8, False, True),
    (1, 13, 2): (False, False, "track_dirty_pages", 8, False, True),
    (1, 14, 0): (False, False, "track_dirty_pages", 8, True, True),
    (1, 14, 3): (False, False, "track_dirty_pages", 8, True, True),
    (1, 14, 4): (False, True, "track_dirty_pages", 8, True, True),
    (1, 15, 0): (False, False, "track_dirty_pages", 9, True, True),
    (1, 15, 1): (False, True, "track_dirty_pages", 9, True, True),
    (1, 16, 1): (True, True, "track_dirty_pages", 10, True, False),
    (1, 17, 0): (True, True, "track_dirty_pages", None, True, True),
    (2, 0, 0): (True, True, "track_dirty_pages", None, True, True),
}


@pytest.mark.parametrize("version", ROWS)
def test_each_version_has_its_row(version: Version) -> None:
    row = capabilities_of(version)
    found = (
        row.vsock_override,
        row.clock_realtime,
        row.track_dirty_key,
        row.snapshot_format,
        row.free_page_reporting,
        row.bare_pause,
    )
    assert found == ROWS[version]
    assert row.entropy
    assert row.balloon


@pytest.mark.parametrize(
    ("version", "why"),
    [((1, 16, 0), "vsock is dead after a restore"), ((1, 12, 0), "too old"), ((0, 25, 2), "too old")],
)
def test_a_version_that_must_not_be_used_is_refused_with_the_reason(version: Version, why: str) -> None:
    with pytest.raises(RuntimeBroken, match=why) as caught:
        capabilities_of(version)
    assert "pyro runtime install" in caught.value.remedy


def test_the_way_out_is_accepted_with_warnings_and_the_pinned_version_without() -> None:
    out_of_support, jailer = warnings_about((1, 12, 1))
    assert "out of support" in out_of_support
    assert "CVE-2026-1386" in jailer
    assert warnings_about(PINNED) == ()


@pytest.mark.parametrize(
    ("version", "vulnerable"), [((1, 13, 1), True), ((1, 13, 2), False), ((1, 14, 0), True), ((1, 14, 1), False)]
)
def test_the_jailers_fix_counts_in_each_minor_version(version: Version, *, vulnerable: bool) -> None:
    assert any("CVE-2026-1386" in line for line in warnings_about(version)) == vulnerable


def test_the_version_is_read_from_what_the_programs_print() -> None:
    assert parse_version("Firecracker v1.12.1\n\n2026-11-23T17:59:24 exiting") == (1, 12, 1)
    assert parse_version("Jailer v1.16.1\n") == (1, 16, 1)


@pytest.mark.parametrize("text", ["", "QEMU emulator version 7.2.22", "Firecracker", "Firecracker v1.2"])
def test_another_program_is_refused(text: str) -> None:
    with pytest.raises(RuntimeBroken, match="not Firecracker"):
        parse_version(text)
