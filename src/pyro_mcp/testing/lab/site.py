"""The Python packages of the lab: what pyro and its tests need, for the lab's Python, in the versions used here."""

import hashlib
import os
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from pyro_mcp.host import proc
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, storage
from pyro_mcp.paths import Paths
from pyro_mcp.testing.lab.rootfs import PYTHON
from pyro_mcp.testing.lab.stale import drop_older

PLATFORM = "x86_64-manylinux_2_36"  # the C library of Debian 12
TEST_TOOLS = ("pytest", "hypothesis")  # with all whose names start so, such as pytest-timeout


def wanted(project: dict[str, Any]) -> list[str]:
    """The requirements for the lab, of a parsed pyproject.toml: pyro's own, and those of the test tools."""
    tools = [row for row in project["dependency-groups"]["dev"] if isinstance(row, str) and row.startswith(TEST_TOOLS)]
    return sorted([*project["project"]["dependencies"], *tools])


def ensure_site(paths: Paths, checkout: Path, deadline: Deadline) -> Path:
    """A directory for PYTHONPATH in the lab, made by uv. Raises ProgramMissing or ProgramFailed."""
    with storage("reading pyproject.toml"):
        requirements = wanted(tomllib.loads((checkout / "pyproject.toml").read_text()))
    pins = sorted(f"{item.name}=={item.version}" for item in metadata.distributions() if item.name != "pyro-mcp")
    digest = hashlib.sha256("\n".join([PYTHON, PLATFORM, *requirements, "", *pins]).encode()).hexdigest()
    directory = private_directory(paths.lab) / f"site-{digest[:16]}"
    if directory.exists():
        return directory
    partial = directory.with_name(f".partial-site-{os.getpid()}")
    try:
        _install(private_directory(partial), requirements, pins, deadline)
        with storage(f"installing {directory}"):
            partial.rename(directory)
    finally:
        remove_tree(partial)
    drop_older(paths.lab, "site-*")
    return directory


def _install(target: Path, requirements: list[str], pins: list[str], deadline: Deadline) -> None:
    constraints = target / "constraints.txt"
    with storage(f"preparing {target}"):
        constraints.write_text("".join(f"{pin}\n" for pin in pins))
    uv = os.environ.get("UV", "uv")  # set by `uv run`
    env = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_", "SSL_"))}
    argv = [uv, "pip", "install", "--quiet", "--target", str(target), "--python-version", PYTHON]
    argv += ["--python-platform", PLATFORM, "--only-binary", ":all:", "--constraint", str(constraints)]
    proc.run([*argv, *requirements], deadline, env=env)
    # An emulated CPU takes seconds to compile pytest, at each start. Without this Python it does so.
    compiling = [uv, "run", "--quiet", "--no-project", "--python", PYTHON]
    proc.run([*compiling, "python", "-m", "compileall", "-q", str(target)], deadline, env=env, check=False)
