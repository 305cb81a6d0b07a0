"""A kernel and initramfs that were built beforehand and lie in a runtime bundle: used where they fit the agent.

With them a host needs no archive, and no ``dpkg``, to start guests. A kernel that this user's pyro has fetched
goes before; it may be newer.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.errors import RuntimeBroken
from pyro_mcp.host.files import sha256_file, storage
from pyro_mcp.paths import PLATFORM
from pyro_mcp.runtime import bundle
from pyro_mcp.runtime.agent import Agent
from pyro_mcp.runtime.manifest import DIGEST, PARTS, Runtime
from pyro_mcp.runtime.recipe import RECIPE

KEY = "guest"  # in the bundle's manifest, and the directory of the parts
FILE_MODE = 0o644
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """The parts in *directory*, not yet compared; *record* is what the runtime's manifest takes over."""

    directory: Path
    digests: dict[str, str]
    record: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """What it was built from."""
        inputs: dict[str, Any] = self.record["inputs"]
        return inputs

    @property
    def version(self) -> str:
        """Of the kernel package."""
        return str(self.record["kernel"]["version"])

    def copy_to(self, made: Path) -> None:
        """Copy all parts into the directory *made*; raises RuntimeBroken for one that differs from its digest."""
        for name in PARTS:
            with storage(f"copying {self.directory / name}"):
                shutil.copyfile(self.directory / name, made / name)
                (made / name).chmod(FILE_MODE)
            found = sha256_file(made / name)
            if found != self.digests[name]:
                raise RuntimeBroken(
                    f"{self.directory / name} has the wrong SHA-256: {found}, expected {self.digests[name]}",
                    remedy="Install the package again, or make the bundle again with `make runtime-materialize`.",
                )


def find(agent: Agent) -> Prebuilt | None:
    """The parts in the bundle the user named, or in this package, if they are of *agent* and this builder."""
    for present in (bundle.named(), bundle.embedded()):
        if present is not None and KEY in present.manifest:
            found = _read(present)
            if found.inputs == {**RECIPE, "agent": agent.sha256, "kernel": found.inputs.get("kernel")}:
                return found
    return None


def _read(present: bundle.Bundle) -> Prebuilt:
    """What the bundle's manifest says of its parts; raises RuntimeBroken when that is not understood."""
    section = present.manifest[KEY]
    if not isinstance(section, dict) or list(_wrong(section)):
        wrong = ", ".join(_wrong(section)) if isinstance(section, dict) else KEY
        raise RuntimeBroken(f"{present.root / PLATFORM / bundle.MANIFEST} is damaged: {wrong}", remedy=bundle.REMEDY)
    digests = {name: section["parts"][name]["sha256"] for name in PARTS}
    record = {name: section[name] for name in ("inputs", "kernel", "modules")}
    return Prebuilt(present.root / PLATFORM / KEY, digests, record)


def _wrong(section: dict[str, Any]) -> Iterator[str]:
    """The names of what is missing or malformed in *section*."""
    inputs, kernel, parts = (section.get(name) for name in ("inputs", "kernel", "parts"))
    described = inputs.get("kernel") if isinstance(inputs, dict) else None
    if not isinstance(described, dict) or not isinstance(section.get("modules"), dict):
        yield "inputs"
    elif (
        not isinstance(kernel, dict)
        or {**kernel, **described} != kernel
        or not RELEASE.fullmatch(str(kernel.get("release")))
        or not isinstance(kernel.get("version"), str)
    ):
        yield "kernel"
    for name in PARTS:
        part = parts.get(name) if isinstance(parts, dict) else None
        if not isinstance(part, dict) or not DIGEST.fullmatch(str(part.get("sha256"))):
            yield name


def pack(runtime: Runtime, directory: Path) -> dict[str, Any]:
    """Copy the parts of *runtime* into *directory*, and give what a bundle's manifest says of them."""
    recorded = runtime.manifest["parts"]
    made = Prebuilt(runtime.kernel.parent, {name: recorded[name]["sha256"] for name in PARTS}, {})
    with storage(f"packing {runtime.kernel.parent}"):
        directory.mkdir(parents=True)
    made.copy_to(directory)
    parts = {name: {"path": f"{KEY}/{name}", "sha256": made.digests[name]} for name in PARTS}
    return {"parts": parts, **{name: runtime.manifest[name] for name in ("inputs", "kernel", "modules")}}
