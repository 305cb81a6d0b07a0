"""Making a runtime bundle: the programs of the first source that works, kernel and initramfs, a manifest, the notice.

``python -m pyro_mcp.runtime.materialize RECIPE_DIRECTORY TARGET``; the Makefile calls it.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from pyro_mcp import __version__
from pyro_mcp.config import load
from pyro_mcp.errors import PyroError, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, read_json, remove_tree, sha256_file, storage, write_json
from pyro_mcp.host.progress import Progress
from pyro_mcp.paths import PLATFORM, Paths
from pyro_mcp.runtime import build, bundle, prebuilt
from pyro_mcp.runtime.manifest import Runtime
from pyro_mcp.runtime.vmm_sources import PROGRAMS, RELEASE, SOURCES, WHEEL, Source, first_that_works
from pyro_mcp.runtime.vmm_versions import capabilities_of, version_text

RECIPE = "sources.json"
SECONDS = 900.0
KINDS = {RELEASE.name: RELEASE, WHEEL.name: WHEEL}


class _Lines:
    """Progress as lines on stderr."""

    def phase(self, name: str, **fields: object) -> None:
        self.note(" ".join([name, *(f"{key}={value}" for key, value in fields.items())]))

    def advance(self, done_bytes: int, total_bytes: int | None = None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        sys.stderr.write(f"[runtime-materialize] {text}\n")


def recipe(directory: Path) -> tuple[Source, ...]:
    """The sources that *directory* names, in order. Raises RuntimeBroken unless they are those that pyro pins."""
    record = read_json(directory / PLATFORM / RECIPE)
    rows = record.get("sources") if record else None
    wanted = [_row(source) for source in SOURCES]
    if rows != wanted:
        raise RuntimeBroken(
            f"{directory / PLATFORM / RECIPE} differs from what pyro pins",
            remedy="Change the recipe and src/pyro_mcp/runtime/vmm_sources.py together.",
        )
    return SOURCES


def _row(source: Source) -> dict[str, Any]:
    return {
        "kind": source.name,
        "version": version_text(source.version),
        "location": source.location,
        "archive_sha256": source.archive_sha256,
        "programs": {name: {"member": source.members[name], "sha256": source.digests[name]} for name in PROGRAMS},
    }


def materialize(
    recipes: Path,
    target: Path,
    progress: Progress,
    deadline: Deadline,
    sources: tuple[Source, ...] | None = None,
    guest: Runtime | None = None,
) -> bundle.Bundle:
    """Make the bundle *target*, in place of one that is there; with kernel and initramfs if *guest* is given.

    Raises RuntimeBroken when no source works.
    """
    chosen = recipe(recipes) if sources is None else sources
    partial = target.with_name(f".partial-{target.name}")
    remove_tree(partial)
    try:
        source, programs = first_that_works(private_directory(partial / "work"), progress, deadline, chosen)
        made = partial / "bundle"
        directory = made / PLATFORM
        with storage(f"making {target}"):
            (directory / "bin").mkdir(parents=True)
            for name, path in programs.items():
                shutil.copyfile(path, directory / "bin" / name)
                (directory / "bin" / name).chmod(0o755)
            shutil.copyfile(recipes / bundle.NOTICE, made / bundle.NOTICE)
            shutil.copytree(recipes / bundle.LICENSES, made / bundle.LICENSES)
            packed = {} if guest is None else {prebuilt.KEY: prebuilt.pack(guest, directory / prebuilt.KEY)}
            write_json(directory / bundle.MANIFEST, {**_manifest(source, directory), **packed})
            (directory / bundle.MANIFEST).chmod(0o644)
            remove_tree(target)
            made.rename(target)
    finally:
        remove_tree(partial)
    return bundle.read(target, "bundle")


def _manifest(source: Source, directory: Path) -> dict[str, Any]:
    row = capabilities_of(source.version)
    return {
        "bundle_version": __version__,
        "platform": PLATFORM,
        "component_versions": dict.fromkeys(PROGRAMS, row.text),
        "capabilities": {
            "vm_boot": True,
            "guest_exec": True,
            "guest_network": True,
            "snapshot_format": row.snapshot_format,
            "vsock_override": row.vsock_override,
            "clock_realtime": row.clock_realtime,
            "free_page_reporting": row.free_page_reporting,
        },
        "source": {"kind": source.name, "location": source.location},
        "binaries": {
            name: {"path": f"bin/{name}", "sha256": sha256_file(directory / "bin" / name)} for name in PROGRAMS
        },
    }


def main(arguments: list[str]) -> int:
    """Make the bundle; 1 when it cannot be made."""
    recipes, target = (Path(word) for word in arguments)
    os.umask(0o022)
    try:
        deadline = Deadline.after(SECONDS)
        guest = build.ensure(Paths.of_user(), load(), _Lines(), deadline)
        made = materialize(recipes, target, _Lines(), deadline, guest=guest)
    except PyroError as error:
        sys.stderr.write(f"[error] {error.cause}\n        {error.remedy}\n")
        return 1
    _Lines().note(
        f"made {made.root} with Firecracker {made.manifest['component_versions']['firecracker']}"
        f" and the kernel {guest.kernel_version}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
