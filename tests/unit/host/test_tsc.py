"""The frequency of the time-stamp counter is measured once per boot, and only a plausible one counts."""

import json
from pathlib import Path

import pytest

from pyro_mcp.host.tsc import parse, tsc_khz
from pyro_mcp.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "state", tmp_path / "cache", tmp_path / "environments")


def agent(directory: Path, script: str) -> Path:
    """A program in the agent's place."""
    path = directory / "pyro-agent"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_the_agent_measures_is_the_answer(paths: Paths, tmp_path: Path) -> None:
    program = agent(tmp_path, '[ "$*" = tsc ] && echo 2596144')
    assert tsc_khz(paths, program, machine="x86_64") == 2596144


def test_it_is_measured_once_per_boot(paths: Paths, tmp_path: Path) -> None:
    assert tsc_khz(paths, agent(tmp_path, "echo 2000000"), machine="x86_64") == 2000000
    program = agent(tmp_path, "echo 3000000")
    assert tsc_khz(paths, program, machine="x86_64") == 2000000
    facts = json.loads(paths.host_facts.read_text())
    paths.host_facts.write_text(json.dumps({**facts, "boot_id": "another boot"}))
    assert tsc_khz(paths, program, machine="x86_64") == 3000000


def test_it_does_not_disturb_what_else_is_remembered(paths: Paths, tmp_path: Path) -> None:
    tsc_khz(paths, agent(tmp_path, "echo 2000000"), machine="x86_64")
    facts = json.loads(paths.host_facts.read_text())
    paths.host_facts.write_text(json.dumps({"boot_id": facts["boot_id"], "kvm": {"reason": ""}}))
    tsc_khz(paths, agent(tmp_path, "echo 2000000"), machine="x86_64")
    assert json.loads(paths.host_facts.read_text())["kvm"] == {"reason": ""}


@pytest.mark.parametrize("script", ["exit 1", "echo 5", "echo fast", "echo 99999999999", "true", "kill -9 $$"])
def test_a_failed_measurement_is_no_answer_and_not_remembered(paths: Paths, tmp_path: Path, script: str) -> None:
    assert tsc_khz(paths, agent(tmp_path, script), machine="x86_64") is None
    assert not paths.host_facts.exists()


def test_a_missing_agent_is_no_answer(paths: Paths, tmp_path: Path) -> None:
    assert tsc_khz(paths, tmp_path / "none", machine="x86_64") is None


def test_other_processors_have_no_such_counter(paths: Paths, tmp_path: Path) -> None:
    assert tsc_khz(paths, agent(tmp_path, "echo 2000000"), machine="aarch64") is None


@pytest.mark.parametrize(
    ("output", "khz"),
    [
        (b"2596144\n", 2596144),
        (b"2596144", 2596144),
        (b"", None),
        (b"-2596144\n", None),
        (b"2596144 kHz\n", None),
        (b"2e6\n", None),
        (b"\xd9\xa3000000\n", None),
        (b"9" * 5000, None),
    ],
)
def test_only_a_plain_plausible_number_counts(output: bytes, khz: int | None) -> None:
    assert parse(output) == khz
