"""The host packages and the commands that install them."""

import os
from pathlib import Path

import pytest

from pyro_mcp.host.packages import REQUIREMENTS, install_commands, missing, package_of


def test_every_program_that_is_not_there_is_missing(tmp_path: Path) -> None:
    found = {need.program for need in missing(str(tmp_path))}
    assert found == {need.program for need in REQUIREMENTS if need.root_needs_it or os.geteuid() != 0}


def test_a_program_that_is_there_is_not_missing(tmp_path: Path) -> None:
    program = tmp_path / "mke2fs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "mke2fs" not in {need.program for need in missing(str(tmp_path))}


def test_the_commands_install_each_package_once_without_recommendations() -> None:
    commands = install_commands(REQUIREMENTS)
    assert commands[0][-1] == "update"
    packages = commands[1][commands[1].index("--no-install-recommends") + 1 :]
    assert packages == sorted({need.package for need in REQUIREMENTS})
    assert (commands[0][0] == "sudo") == (os.geteuid() != 0)


def test_when_nothing_is_missing_there_is_nothing_to_run() -> None:
    assert install_commands([]) == []


@pytest.mark.parametrize(("program", "package"), [("qemu-system-x86_64", "qemu-system-x86"), ("nosuch", None)])
def test_a_program_names_its_package(program: str, package: str | None) -> None:
    assert package_of(program) == package
