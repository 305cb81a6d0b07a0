"""What a built runtime is, and how it is known to be intact: ``manifest.json`` beside its parts."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pyro_mcp.errors import PyroError, RuntimeBroken
from pyro_mcp.host.files import read_json, sha256_file

INDEX = "current.json"
MANIFEST = "manifest.json"
KERNEL = "vmlinux"
INITRAMFS = "initramfs.cpio"
INITRAMFS_VSOCK = "initramfs-vsock.cpio"
PARTS = (KERNEL, INITRAMFS, INITRAMFS_VSOCK)
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells, without reading it, that a file is still the one that was hashed."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """From what stat(2) says."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    @classmethod
    def read(cls, value: object) -> "Identity | None":
        """From a JSON object; ``None`` when it is not one of ours."""
        if not isinstance(value, dict):
            return None
        numbers = [value.get(name) for name in ("size", "mtime_ns", "inode")]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            return None
        return cls(value["size"], value["mtime_ns"], value["inode"])


class Runtime(NamedTuple):
    """What a VMM needs to boot a guest. *digest* (64 hex digits) names all it was built from."""

    kernel: Path  # an uncompressed ELF vmlinux
    initramfs: Path  # for a link over virtio-serial (QEMU)
    initramfs_vsock: Path  # for a link over vsock (Firecracker)
    agent: Path  # the agent's binary, to be run on the host (``pyro-agent tsc``)
    digest: str
    kernel_version: str  # as uname(1) -r has it
    manifest: dict[str, Any]


def digest_of(inputs: dict[str, Any]) -> str:
    """The name of what is built from *inputs*."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def part_record(path: Path) -> dict[str, Any]:
    """What the manifest says of a part, to be taken from the file in its last place."""
    return {"sha256": sha256_file(path), **asdict(Identity.of(path.stat()))}


def load(directory: Path, agent: Path) -> Runtime:
    """The runtime in *directory*, its parts compared by size, time and inode; raises RuntimeBroken."""
    manifest = read_json(directory / MANIFEST)
    if manifest is None:
        raise RuntimeBroken(f"{directory / MANIFEST} is missing or damaged")
    problem = _problem(manifest, directory)
    if problem:
        raise RuntimeBroken(problem)
    return Runtime(
        kernel=directory / KERNEL,
        initramfs=directory / INITRAMFS,
        initramfs_vsock=directory / INITRAMFS_VSOCK,
        agent=agent,
        digest=manifest["digest"],
        kernel_version=manifest["kernel"]["release"],
        manifest=manifest,
    )


def load_checked(directory: Path, agent: Path) -> Runtime:
    """As ``load``, and every part's bytes are compared with the recorded digest."""
    runtime = load(directory, agent)
    for name in PARTS:
        if sha256_file(directory / name) != runtime.manifest["parts"][name]["sha256"]:
            raise RuntimeBroken(f"{directory / name} differs from its recorded digest")
    return runtime


def _problem(manifest: dict[str, Any], directory: Path) -> str:
    """Why the runtime in *directory* does not count; empty when it does."""
    damaged = f"{directory / MANIFEST} is damaged"
    inputs, kernel, parts = (manifest.get(name) for name in ("inputs", "kernel", "parts"))
    if not isinstance(inputs, dict) or not isinstance(kernel, dict) or not isinstance(parts, dict):
        return damaged
    if (
        manifest.get("digest") != directory.name
        or digest_of(inputs) != directory.name
        or not isinstance(kernel.get("release"), str)
    ):
        return damaged
    for name in PARTS:
        record = parts.get(name)
        recorded = Identity.read(record)
        if recorded is None or not isinstance(record, dict) or not DIGEST.fullmatch(str(record.get("sha256"))):
            return damaged
        try:
            present = Identity.of((directory / name).stat())
        except OSError as error:
            return f"{directory / name} cannot be used: {error.strerror}"
        if present != recorded:
            return f"{directory / name} was changed"
    return ""


def reason_not_intact(directory: Path, agent: Path, *, full: bool) -> str:
    """Why the runtime in *directory* is not intact; empty when it is."""
    try:
        (load_checked if full else load)(directory, agent)
    except PyroError as error:
        return error.cause
    return ""
