"""What a command loads before it does anything: bounded by number, because times differ from host to host."""

import subprocess
import sys
from pathlib import Path

import pytest

VERSION_MOST = 60
RUN_MOST = 260
# Needed by no run of an installed environment under QEMU: an HTTP client, an installer, the decompressors, other verbs.
UNWANTED = (
    "http.client",
    "ssl",
    "email",
    "lz4",
    "zstandard",
    "urllib.request",
    "pyro_mcp.drivers.firecracker.driver",
    "pyro_mcp.environments.bootstrap",
    "pyro_mcp.environments.oci.registry",
    "pyro_mcp.environments.oci.transport",
    "pyro_mcp.engine.doctor",
    "pyro_mcp.engine.tasks.service",
    "pyro_mcp.mcp_server",
    "mcp",
    # Loaded while the VMM starts, or never.
    "pyro_mcp.guest.client",
    "pyro_mcp.engine.commands",
    "pyro_mcp.engine.warm_up",
    "pyro_mcp.engine.pool",
    "pyro_mcp.engine.host_compat",
)


def loaded(program: str) -> set[str]:
    """The modules that *program* loads."""
    code = f"{program}\nimport sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=True)
    return set(done.stderr.decode().split())


def test_asking_for_the_version_loads_next_to_nothing() -> None:
    program = "import sys; sys.argv = ['pyro', '--version']; from pyro_mcp.__main__ import main; main()"
    modules = loaded(program)
    assert "click" not in modules
    assert len(modules) <= VERSION_MOST, sorted(modules)


@pytest.fixture(scope="module")
def run_modules() -> set[str]:
    return loaded("import pyro_mcp.__main__, pyro_mcp.cli.main, pyro_mcp.cli.run, pyro_mcp.sdk")


def test_a_run_loads_a_bounded_number_of_modules(run_modules: set[str]) -> None:
    assert len(run_modules) <= RUN_MOST, sorted(run_modules)


@pytest.mark.parametrize("name", UNWANTED)
def test_a_run_does_not_load_what_it_does_not_need(run_modules: set[str], name: str) -> None:
    assert name not in run_modules


@pytest.mark.parametrize("left", [False, True])
def test_who_has_no_task_does_not_load_what_tasks_need(tmp_path: Path, *, left: bool) -> None:
    stray = tmp_path / "tasks" / "0123456789ab"
    stray.mkdir(parents=True)
    if not left:
        stray.rmdir()
    modules = loaded(f"from pyro_mcp import Pyro; Pyro(base_dir={str(tmp_path)!r}).reap_expired()")
    assert ("pyro_mcp.engine.tasks.service" in modules) == left
    assert not stray.exists()
