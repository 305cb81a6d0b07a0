"""A Python environment for a dependency group that only some tests need, below build/, kept from session to session."""

import os
import subprocess
from pathlib import Path

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.locks import locked

ROOT = Path(__file__).parents[1]
INSTALL_SECONDS = 280.0


def programs_of(group: str, *, with_pyro: bool = False) -> Path:
    """The ``bin`` directory of the environment of *group*, made if it is not there; *with_pyro*: with this checkout."""
    uv = os.environ.get("UV") or str(Path.home() / ".local" / "bin" / "uv")
    environment = ROOT / "build" / f"{group}-venv"
    environment.parent.mkdir(exist_ok=True)
    only = ["--no-default-groups", "--group", group] if with_pyro else ["--only-group", group]
    with locked(environment.with_suffix(".lock"), Deadline.after(INSTALL_SECONDS)):
        subprocess.run(
            [uv, "sync", "--quiet", *only],
            cwd=ROOT,
            env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
            timeout=INSTALL_SECONDS,
            check=True,
        )
    return environment / "bin"
