"""Make a runtime of a kernel package and the agent: a kernel, an initramfs for each link, a manifest."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyro_mcp.config import Settings
from pyro_mcp.errors import PyroError, RuntimeBroken
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.files import private_directory, remove_tree, storage, write_atomically, write_json
from pyro_mcp.host.progress import Progress
from pyro_mcp.model import new_token
from pyro_mcp.paths import Paths
from pyro_mcp.runtime import initramfs, kernel, modules, prebuilt, vmlinux
from pyro_mcp.runtime.agent import Agent, read_agent
from pyro_mcp.runtime.manifest import (
    DIGEST,
    INDEX,
    INITRAMFS,
    INITRAMFS_VSOCK,
    KERNEL,
    MANIFEST,
    PARTS,
    Runtime,
    digest_of,
    load,
    part_record,
    reason_not_intact,
)
from pyro_mcp.runtime.recipe import RECIPE, WANTED

PARTIAL = ".partial-"
FILE_MODE = 0o644  # a QEMU of another uid opens them again through /proc/self/fd
KEPT = 2  # the runtime in use and the one before, from which a machine may be starting


@dataclass(frozen=True, slots=True)
class Builder:
    """Who holds the runtime lock, and builds."""

    paths: Paths
    settings: Settings
    progress: Progress
    deadline: Deadline

    def build(self, agent_path: Path, *, refresh: bool, damage: str) -> Runtime:
        """Make the runtime of this agent unless it is there, and put it in use. *damage*: why it is needed."""
        self._sweep()
        agent, program = read_agent(agent_path)
        work = private_directory(self.paths.runtimes / f"{PARTIAL}{new_token()}")
        try:
            source = self._source(agent, work, refresh=refresh)
            if isinstance(source, prebuilt.Prebuilt):
                inputs = source.inputs
            else:
                inputs = {**RECIPE, "agent": agent.sha256, "kernel": source.described}
            target = self.paths.runtimes / digest_of(inputs)
            present = target.exists()
            damage = (reason_not_intact(target, agent.path, full=True) if present else "") or damage
            if damage:
                self.progress.note(f"The runtime is built again: {damage}.")
            if damage or not present:
                self.progress.phase("runtime-build", kernel=source.version)
                made = private_directory(work / target.name)
                if isinstance(source, prebuilt.Prebuilt):
                    source.copy_to(made)
                    _finish(made, source.record)
                else:
                    self._make(made, source, program, inputs, work)
                _publish(made, target, work)
            self._put_in_use(agent, target.name)
            return load(target, agent.path)
        finally:
            remove_tree(work)

    def _source(self, agent: Agent, work: Path, *, refresh: bool) -> kernel.KernelPackage | prebuilt.Prebuilt:
        """What to make it from: the kernel package that was kept, what a bundle has, or the archive's kernel.

        With *refresh* the archive comes first.
        """
        if not refresh:
            found = kernel.chosen(self.paths) or prebuilt.find(agent)
            if found is not None:
                return found
        try:
            return kernel.fetch(self.paths, self.settings, work, self.progress, self.deadline)
        except PyroError as error:
            bundled = prebuilt.find(agent) if refresh else None
            if bundled is None:
                raise
            self.progress.note(f"The kernel of the bundle, {bundled.version}, is used: {error.cause}")
            return bundled

    def _make(
        self, made: Path, package: kernel.KernelPackage, program: bytes, inputs: dict[str, Any], work: Path
    ) -> None:
        """Write all parts and the manifest into the directory *made*."""
        with kernel.opened(package.path, work, self.deadline) as files:
            chosen = {link: modules.select(names, files.module, files.builtin) for link, names in WANTED.items()}
            _write_kernel(made / KERNEL, files.image())
            release = files.release
        self.deadline.check("building the runtime", RuntimeBroken)
        write_atomically(made / INITRAMFS, initramfs.build(program, chosen["serial"]), mode=FILE_MODE)
        write_atomically(made / INITRAMFS_VSOCK, initramfs.build(program, chosen["vsock"]), mode=FILE_MODE)
        loaded = {link: [module.name for module in order] for link, order in chosen.items()}
        kernel_record = {**inputs["kernel"], "release": release}
        _finish(made, {"inputs": inputs, "kernel": kernel_record, "modules": loaded})

    def _put_in_use(self, agent: Agent, digest: str) -> None:
        """Write the index, and remove runtimes that nobody starts from any more."""
        runtimes = self.paths.runtimes
        index = {
            "recipe": RECIPE,
            "digest": digest,
            "agent": {"path": str(agent.path), **asdict(agent.identity)},
        }
        with storage(f"installing the runtime in {runtimes}"):
            os.utime(runtimes / digest)
            write_json(runtimes / INDEX, index)
            present = [path for path in runtimes.iterdir() if DIGEST.fullmatch(path.name)]
            for old in sorted(present, key=lambda path: path.stat().st_mtime_ns, reverse=True)[KEPT:]:
                remove_tree(old)

    def _sweep(self) -> None:
        """Remove what killed builders left: the lock is held, so none lives."""
        with storage(f"sweeping {self.paths.runtimes}"):
            for path in self.paths.runtimes.glob(f"{PARTIAL}*"):
                remove_tree(path)


def _finish(made: Path, record: dict[str, Any]) -> None:
    """Write the manifest of the parts in *made*."""
    parts = {name: part_record(made / name) for name in PARTS}
    write_json(made / MANIFEST, {**record, "digest": made.name, "parts": parts})


def _write_kernel(path: Path, image: bytes) -> None:
    with storage(f"writing {path}"), path.open("x+b") as stream:
        os.fchmod(stream.fileno(), FILE_MODE)
        vmlinux.extract(image, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _publish(made: Path, target: Path, work: Path) -> None:
    """Give the directory *made* its name, in place of a damaged one. The parts keep their times and inodes."""
    with storage(f"installing {target}"):
        if target.exists():
            target.rename(work / "damaged")
        made.rename(target)
