"""``environments.lock``: which digest a tag stood for when it was first pulled.

A tag is whatever its registry says today. So the first pull writes the digest down, later ones ask for that digest, and
only ``pyro env pull --update`` moves it. The file is JSON with sorted keys and can be kept in a project's repository
(``PYRO_ENVIRONMENTS_LOCK`` names it).
"""

from pathlib import Path
from typing import Any

from pyro_mcp.environments.oci.reference import DIGEST
from pyro_mcp.errors import EnvironmentFault
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import read_json, storage, write_json
from pyro_mcp.host.locks import locked

VERSION = 1
LOCK_SECONDS = 30.0


class Lock:
    """The lock file at *path*. Changes are made under *guard*, a file that is locked meanwhile."""

    def __init__(self, path: Path, guard: Path) -> None:
        self.path = path
        self._guard = guard

    def pins(self) -> dict[str, str]:
        """Every name with its digest. Raises EnvironmentFault for a file that is none of ours."""
        value = read_json(self.path)
        if value is None:
            if self.path.exists():
                raise self._damaged()
            return {}
        pins = value.get("pins")
        if value.get("version") != VERSION or not isinstance(pins, dict):
            raise self._damaged()
        if not all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in pins.values()):
            raise self._damaged()
        return {str(name): digest for name, digest in pins.items()}

    def get(self, name: str) -> str:
        """The digest of *name*; empty when it has none."""
        return self.pins().get(name, "")

    def pin(self, name: str, digest: str) -> None:
        """Write down that *name* stands for *digest*."""
        with storage(f"preparing {self.path.parent}"):
            self._guard.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._guard, Deadline.after(LOCK_SECONDS)):
            pins = self.pins()
            if pins.get(name) != digest:
                value: dict[str, Any] = {"version": VERSION, "pins": {**pins, name: digest}}
                write_json(self.path, value)

    def _damaged(self) -> EnvironmentFault:
        return EnvironmentFault(
            f"{self.path} is damaged, so it is not known which images are meant",
            remedy="Restore it, or remove it to take what the tags stand for today.",
        )
