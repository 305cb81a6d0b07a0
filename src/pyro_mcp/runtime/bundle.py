"""A runtime bundle: a directory with ``NOTICE`` and ``linux-x86_64/{manifest.json,bin/...,guest/...}``.

``make runtime-materialize`` makes one, ``PYRO_RUNTIME_BUNDLE_DIR`` names one, a wheel may have one inside.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host.files import read_json
from pyro_mcp.paths import PLATFORM
from pyro_mcp.runtime.vmm_sources import PROGRAMS

VARIABLE = "PYRO_RUNTIME_BUNDLE_DIR"
EMBEDDED = Path(__file__).parents[1] / "runtime_bundle"
MANIFEST = "manifest.json"
NOTICE = "NOTICE"
LICENSES = "licenses"
SHA256 = re.compile(r"[0-9a-f]{64}")
REMEDY = f"Make the bundle again with `make runtime-materialize`, or unset {VARIABLE}."


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest was read; its files are compared when they are used."""

    root: Path
    source: str  # "bundle" (named by the user) or "embedded"
    programs: dict[str, Path]
    digests: dict[str, str]
    manifest: dict[str, Any]

    @property
    def notice(self) -> Path:
        """The licences of what is in it."""
        return self.root / NOTICE


def named() -> Bundle | None:
    """The bundle the user has named; ``None`` when there is none. Raises RuntimeBroken for a broken one."""
    value = os.environ.get(VARIABLE)
    return read(Path(value).expanduser().absolute(), "bundle") if value else None


def embedded(root: Path = EMBEDDED) -> Bundle | None:
    """The bundle inside this package; ``None`` when it was built without one."""
    return read(root, "embedded") if (root / PLATFORM / MANIFEST).exists() else None


def read(root: Path, source: str) -> Bundle:
    """The bundle at *root*; raises RuntimeBroken naming what its manifest lacks."""
    directory = root / PLATFORM
    manifest = read_json(directory / MANIFEST)
    if manifest is None:
        raise RuntimeBroken(f"{directory / MANIFEST} is missing or damaged", remedy=REMEDY)
    binaries = manifest.get("binaries")
    programs, digests = {}, {}
    for name in PROGRAMS:
        row = binaries.get(name) if isinstance(binaries, dict) else None
        path, digest = (row.get("path"), row.get("sha256")) if isinstance(row, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(digest, str) or not SHA256.fullmatch(digest):
            raise RuntimeBroken(f"{directory / MANIFEST} does not say what {name} is", remedy=REMEDY)
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise RuntimeBroken(f"{directory / MANIFEST}: {name} lies outside the bundle", remedy=REMEDY)
        programs[name], digests[name] = directory / path, digest
    return Bundle(root, source, programs, digests, manifest)
