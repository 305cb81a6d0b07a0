"""What a gate says about itself is read, whatever a gate that was taken over puts there."""

import json
import os
from pathlib import Path

import pytest

from pyro_mcp.host.locks import try_lock
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.model import NetworkPolicy
from pyro_mcp.network.counters import GATE_LOST, STATS_BYTES_MOST, learned, report
from pyro_mcp.paths import MachinePaths

PUBLIC = NetworkPolicy()


@pytest.fixture
def files(tmp_path: Path) -> MachinePaths:
    paths = MachinePaths(tmp_path)
    paths.network.mkdir()
    return paths


def test_a_machine_whose_gate_is_gone_says_so_while_it_runs(files: MachinePaths) -> None:
    me = ProcessId.current()
    assert report(PUBLIC, me, files)["problem"] == ""  # it was started by a pyro that knew no such lock
    held = try_lock(files.gate_lock)
    assert held is not None
    assert report(PUBLIC, me, files)["problem"] == ""
    os.close(held)
    assert report(PUBLIC, me, files)["problem"] == GATE_LOST
    assert report(PUBLIC, None, files)["problem"] == ""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"refused": "x", "refused_names": 7}',
        b'{"refused_names": [7, "a b", "\xff"]}',
    ],
    ids=["nothing", "half", "a list", "deep", "other types", "no names"],
)
def test_nonsense_in_the_place_of_counts_is_nothing(files: MachinePaths, said: bytes) -> None:
    files.resolver_stats.write_bytes(said)
    found = report(PUBLIC, None, files)
    assert (found["refused_names"], found["denied"]) == ([], None)


def test_the_largest_counts_that_a_gate_writes_are_read(files: MachinePaths) -> None:
    """Names, their length, and their addresses together as agent/resolve bounds them."""
    long = [f"{number:04}" + "n" * 59 + ("." + "n" * 62) * 3 + "n" for number in range(1024)]
    counts = {"asked": 2**64 - 1, "refused": 2**64 - 1, "failed": 2**64 - 1, "limited": 2**64 - 1}
    given = {name: [f"200.100.{n >> 8 | 100}.{100 + n % 100}" for n in range(32)] for name in long}
    said = json.dumps({**counts, "refused_names": long[:64], "names": given}, separators=(",", ":"))
    files.resolver_stats.write_text(said)
    assert len(said) <= STATS_BYTES_MOST
    assert report(PUBLIC, None, files)["refused_names"] == long[:64]


def test_neither_a_link_nor_a_pipe_is_read_in_the_place_of_counts(files: MachinePaths, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"refused_names": ["secret.example"]}')
    files.resolver_stats.symlink_to(secret)
    assert report(PUBLIC, None, files)["refused_names"] == []
    files.resolver_stats.unlink()
    for path in (files.resolver_stats, files.gate_lock):
        os.mkfifo(path)
    assert report(PUBLIC, None, files)["refused_names"] == []


@pytest.mark.parametrize(
    "names", [None, [], {"a.example": "1.1.1.1"}, {"a.example": [["1.1.1.1"]]}, {"a b": ["1.1.1.1"]}]
)
def test_names_of_another_form_are_not_learned(names: object) -> None:
    reached = {"set": {"name": "reached", "elem": [{"concat": ["1.1.1.1", "tcp", 443]}]}}
    assert learned([reached], {"names": names}) == ["1.1.1.1:443"]
