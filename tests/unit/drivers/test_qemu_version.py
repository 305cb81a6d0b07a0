"""What is concluded from the version of QEMU."""

from pathlib import Path

import pytest

from pyro_mcp.drivers.qemu.version import emulates_in_parallel, parse
from pyro_mcp.paths import Paths


def qemu(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho >>{path}.asked\n{says}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("output", "version"),
    [
        (b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", (7, 2)),
        (b"QEMU emulator version 10.0.2\n", (10, 0)),
        (b"", None),
        (b"emulator version 9.0", None),
    ],
)
def test_the_version_is_what_the_program_says(output: bytes, version: tuple[int, int] | None) -> None:
    assert parse(output) == version


@pytest.mark.parametrize(("version", "safe"), [("7.2.22", False), ("8.0.5", False), ("8.1.0", True), ("10.0.2", True)])
def test_processors_run_at_the_same_time_from_8_1_on(paths: Paths, tmp_path: Path, version: str, safe: bool) -> None:  # noqa: FBT001
    assert emulates_in_parallel(paths, qemu(tmp_path / "qemu", f"echo QEMU emulator version {version}")) is safe


@pytest.mark.parametrize("says", ["exit 3", "echo something else"])
def test_a_program_that_does_not_say_is_taken_for_an_old_one(paths: Paths, tmp_path: Path, says: str) -> None:
    assert not emulates_in_parallel(paths, qemu(tmp_path / "qemu", says))
    assert not emulates_in_parallel(paths, tmp_path / "missing")


def test_it_is_asked_once_and_again_when_it_was_replaced(paths: Paths, tmp_path: Path) -> None:
    program = qemu(tmp_path / "qemu", "echo QEMU emulator version 7.2.22")
    assert [emulates_in_parallel(paths, program) for _ in range(3)] == [False] * 3
    assert Path(f"{program}.asked").read_text() == "\n"
    qemu(program, "echo QEMU emulator version 10.0.2 # another")
    assert emulates_in_parallel(paths, program)
